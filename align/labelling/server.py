"""The page on which a person says which of two answers is better, offered to this machine alone.

Other addresses need TLS and a token, which the browser asks for as a password. Another site cannot judge in the
person's name: what changes something needs a header with a secret that only this page has, and a name that was made to
point here is refused. The page sends a pair's key, a verdict, seconds and a note; no path and no code.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import secrets
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from align.errors import UserError
from align.labelling.pairs import Answer, Pair
from align.labelling.results import contest
from align.labelling.session import VERDICTS, Session, Verdict
from align.system.network import check_listening, is_loopback, read_token
from align.system.terminal import visible

__all__ = ["LabelServer", "Progress", "listen"]

_LONGEST_REQUEST = 2**16
_SECRET = "X-Label-Secret"


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens there; port 0 takes a free one.

    Raises:
        UserError: The address is in use or not of this machine.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]  # and the address once more
        raise UserError(f"host={host} port={port} cannot be listened on ({reason}); give another port=.") from error


@dataclass
class Progress:
    """How far the drawing of answers is."""

    total: int
    """Pairs that there will be."""
    problem: str | None = None
    """Why no further ones are drawn."""


@dataclass(frozen=True, kw_only=True)
class LabelServer:
    """Shows pairs of a session to an annotator and keeps the verdicts."""

    session: Session
    annotator: str
    progress: Progress
    active: bool = False
    """The pairs of which the reward model is least sure come first."""
    host: str = "127.0.0.1"
    token_env: str | None = None
    """Environment variable with the password that the browser asks for."""
    tls_cert: str | None = None
    tls_key: str | None = None
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    """Of the page, in the header of all that changes something."""

    def __post_init__(self) -> None:
        check_listening(self.host, 0, self.token_env, self.tls_cert, self.tls_key)  # the port is that of the socket

    def run(self, listening: socket.socket, announce: Callable[[str], None]) -> None:
        """Serve what :func:`listen` returned until SIGINT or SIGTERM; ``announce`` is told the address."""
        scheme = "http://" if self.tls_cert is None else "https://"
        everywhere = self.host in ("0.0.0.0", "::")  # no address that a browser can open
        host = socket.gethostname() if everywhere else f"[{self.host}]" if ":" in self.host else self.host
        announce(f"{scheme}{host}:{listening.getsockname()[1]}/")
        config = uvicorn.Config(
            self.app(),
            ssl_certfile=self.tls_cert,
            ssl_keyfile=self.tls_key,
            access_log=False,
            log_level="warning",
            timeout_graceful_shutdown=2,
        )
        with suppress(KeyboardInterrupt):  # uvicorn raises the signal again when it has ended
            uvicorn.Server(config).run(sockets=[listening])

    def app(self) -> Starlette:
        """Return the ASGI application."""
        token = None if self.token_env is None else read_token("token_env", self.token_env)

        def guarded(handle: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
            async def answer(request: Request) -> Response:
                _check_password(request, token)
                if request.method == "POST" and not _same(request.headers.get(_SECRET, ""), self.secret):
                    raise HTTPException(403, "This page is of an earlier start; load it again.")
                try:
                    response = await handle(request)
                except UserError as error:
                    raise HTTPException(500, str(error)) from error
                response.headers["Cache-Control"] = "no-store"
                response.headers["X-Content-Type-Options"] = "nosniff"
                return response

            return answer

        hosts = ["127.0.0.1", "localhost", "[::1]", self.host] if is_loopback(self.host) else ["*"]
        return Starlette(
            routes=[
                Route("/", guarded(self._page)),
                Route("/state", guarded(self._state)),
                Route("/judge", guarded(self._judge), methods=["POST"]),
                Route("/undo", guarded(self._undo), methods=["POST"]),
            ],
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)],
            exception_handlers={HTTPException: _say_error},
        )

    async def _page(self, _: Request) -> Response:
        from jinja2 import Environment

        nonce = secrets.token_urlsafe(16)
        template = (Path(__file__).parent / "page.html.jinja").read_text(encoding="utf-8")
        html = Environment(autoescape=True).from_string(template).render(nonce=nonce, secret=self.secret)
        policy = (
            f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; "
            "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        return HTMLResponse(html, headers={"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"})

    async def _state(self, _: Request) -> Response:
        return _Answer(await run_in_threadpool(self.state))

    async def _judge(self, request: Request) -> Response:
        body = await _read_object(request)
        verdict, seconds, note = body.get("verdict"), body.get("seconds"), body.get("note", "")
        if verdict not in VERDICTS:
            raise HTTPException(400, f"verdict must be one of {', '.join(VERDICTS)}.")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not abs(seconds) <= sys.float_info.max:
            raise HTTPException(400, "seconds must be a number.")
        if not isinstance(note, str):
            raise HTTPException(400, "note must be text.")
        return _Answer(await run_in_threadpool(self.judge, body.get("pair"), verdict, float(seconds), note))

    async def _undo(self, _: Request) -> Response:
        return _Answer(await run_in_threadpool(self.undo))

    def judge(self, key: Any, verdict: Verdict, seconds: float, note: str) -> dict[str, Any]:
        """Keep a verdict on the pair that is shown, and return the next state.

        Raises:
            HTTPException: Another pair is shown by now, as when the page is open twice.
        """
        pair = self.session.next(self.annotator, active=self.active)
        written = note.encode(errors="replace").decode()  # half a surrogate pair has no place in a file
        judged = (
            pair is not None
            and pair.key == key
            and self.session.judge(self.annotator, pair, verdict, seconds=seconds, note=written)
        )
        if not judged:
            raise HTTPException(409, "This pair was judged already, perhaps in another window; here is the next.")
        return self.state()

    def undo(self) -> dict[str, Any]:
        """Take back the last verdict, and return the state that shows its pair again, with its note."""
        event = self.session.undo(self.annotator)
        return self.state() | {"note": "" if event is None else event["note"]}

    def state(self) -> dict[str, Any]:
        """Return all that the page shows, as JSON."""
        session = self.session
        pair = session.next(self.annotator, active=self.active)
        done = session.done(self.annotator)
        same = sum(pair.same for pair in session.pairs)
        drawn = len(session.pairs)
        return {
            "pair": None if pair is None else self._shown(pair),
            "done": len(done),
            "total": self.progress.total - same,
            "same": same,
            "waiting": pair is None and drawn < self.progress.total and self.progress.problem is None,
            "counts": session.counts(done),
            "problem": self.progress.problem,
            "contest": self._contest(),
            "note": "",
        }

    def _contest(self) -> str | None:
        if not self.session.arena or (found := contest(self.session)) is None:
            return None
        assert self.session.settings is not None
        return visible(found.sentence(self.session.settings["policy"], self.session.settings["against"]))

    def _shown(self, pair: Pair) -> dict[str, Any]:
        prompt = pair.row["prompt"]
        turns: list[Mapping[str, Any]] = [{"role": None, "content": prompt}] if isinstance(prompt, str) else prompt
        left = self.session.left(self.annotator, pair)
        return {
            "key": pair.key,
            "prompt": [
                {
                    "role": visible(turn["role"]) if turn["role"] and len(turns) > 1 else "",
                    "text": _text(turn["content"] + (turn.get("tool_calls") or "")),
                }
                for turn in turns
            ],
            "left": _answer(pair.answers[left]),
            "right": _answer(pair.answers[1 - left]),
        }


def _text(text: str) -> str:
    return visible(text.replace("\r\n", "\n"))


def _answer(answer: Answer) -> dict[str, Any]:
    return {"text": _text(answer.text), "cut_off": not answer.finished}


class _Answer(JSONResponse):
    """JSON in ASCII."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode()


def _check_password(request: Request, token: str | None) -> None:
    """Raise unless the password of HTTP's basic authentication is the token; any name goes with it."""
    if token is None:
        return
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    try:
        _, _, password = base64.b64decode(given, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        password = ""
    if scheme.lower() != "basic" or not _same(password, token):
        asked = {"WWW-Authenticate": 'Basic realm="align label: the token is the password", charset="UTF-8"'}
        raise HTTPException(401, "The token is the password, with any name.", headers=asked)


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), wanted.encode())  # the same time wherever they differ


async def _read_object(request: Request) -> dict[str, Any]:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > _LONGEST_REQUEST:
            raise HTTPException(413, f"The request is longer than {_LONGEST_REQUEST} bytes: shorten the note.")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise HTTPException(400, "The request is no JSON object.")
    return cast("dict[str, Any]", body)


async def _say_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _Answer({"error": error.detail}, status_code=error.status_code, headers=error.headers)
