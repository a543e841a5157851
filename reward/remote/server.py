"""A small server that offers a scorer to other processes, in the two dialects of `reward.remote.protocol`.

Requests that arrive together are scored together; one thread calls the scorer. The server listens on this machine only;
other addresses need TLS and a token, since anybody on the network could use it otherwise (OpenRLHF issue 1317).
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from align.errors import ScorerError, UserError
from align.scoring.checked_scores import score
from align.system.network import check_listening, is_loopback, read_token
from reward.remote.protocol import DIALECTS, Dialect, ProtocolError, Question

if TYPE_CHECKING:
    from align.scoring.scorer import Scorer

__all__ = ["RewardServer"]

_CONNECTIONS = 64  # at once; further ones get 503, and clients repeat them
_GRACE = 30  # seconds for open requests when the server stops

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RewardServer:
    """Serves `scorer` at ``/score`` and ``/get_reward``; ``GET /health`` answers when it is up."""

    scorer: Scorer
    host: str = "127.0.0.1"
    """Address to listen on; beyond this machine it needs `token_env`, `tls_cert` and `tls_key`."""
    port: int = 8000
    """Port; 0 takes a free one."""
    token_env: str | None = None
    """Environment variable with the token; requests send it as ``Authorization: Bearer …``."""
    tls_cert: str | None = None
    """File with the certificate chain."""
    tls_key: str | None = None
    """File with the certificate's key."""
    batch_size: int = 64
    """Most responses per call of the scorer; larger requests are split, smaller ones joined."""
    wait: float = 0.005
    """Seconds to wait for more requests before scoring a batch that is not full."""
    max_request_bytes: int = 2**24
    """Longer requests are refused."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_request_bytes"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if not 0 <= self.wait <= 1:
            raise UserError(f"wait must be from 0 to 1 second, not {self.wait}.")
        check_listening(self.host, self.port, self.token_env, self.tls_cert, self.tls_key)

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM; open requests are answered first."""
        if not is_loopback(self.host):
            _log.warning("open to other machines: every request needs the token in %s", self.token_env)
        uvicorn.Server(self.uvicorn_config()).run()

    def uvicorn_config(self) -> uvicorn.Config:
        """Return the configuration of uvicorn."""
        return uvicorn.Config(
            self.app(),
            host=self.host,
            port=self.port,
            ssl_certfile=self.tls_cert,
            ssl_keyfile=self.tls_key,
            access_log=False,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=_GRACE,
        )

    def app(self) -> Starlette:
        """Return the ASGI application, which checks tokens and sizes; uvicorn handles address and TLS."""
        batcher = _Batcher(self.scorer, self.batch_size, self.wait)
        token = None if self.token_env is None else read_token("token_env", self.token_env)

        def endpoint(dialect: Dialect) -> Callable[[Request], Awaitable[Response]]:
            async def answer(request: Request) -> Response:
                _check_token(request, token)
                body = await _read_json(request, self.max_request_bytes)
                try:
                    question = dialect.read_question(body)
                except ProtocolError as error:
                    raise HTTPException(400, f"{error}.") from error
                return _Answer(dialect.write_scores(question, await batcher.score(question)))

            return answer

        async def health(_: Request) -> Response:
            return _Answer({"status": "ok", "scorer": self.scorer.name})

        routes = [Route(dialect.path, endpoint(dialect), methods=["POST"]) for dialect in DIALECTS.values()]
        return Starlette(
            routes=[*routes, Route("/health", health)],
            exception_handlers={HTTPException: _say_error},
            lifespan=lambda _: batcher.running(),
        )


@dataclass(eq=False)
class _Row:
    """One prompt with its responses, waiting for scores."""

    prompt: str
    responses: Sequence[str]
    columns: dict[str, Any]
    scores: asyncio.Future[list[float]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def kind(self) -> tuple[Any, ...]:
        """Rows of the same kind can be scored together: they have equally many responses and the same columns."""
        return (len(self.responses), *sorted(self.columns))


class _Batcher:
    """Joins the rows of requests that arrive together and splits those of large ones."""

    def __init__(self, scorer: Scorer, batch_size: int, wait: float) -> None:
        self._scorer, self._batch_size, self._wait = scorer, batch_size, wait
        self._rows: list[_Row] = []
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scorer")

    async def score(self, question: Question) -> list[list[float]]:
        if not any(question.responses):  # nothing to score, which many a scorer does not expect
            return [[] for _ in question.responses]
        rows = [
            _Row(prompt, responses, {name: values[p] for name, values in question.columns.items()})
            for p, (prompt, responses) in enumerate(zip(question.prompts, question.responses, strict=True))
        ]
        self._rows.extend(rows)
        self._arrived.set()
        return list(await asyncio.gather(*(row.scores for row in rows)))

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        task = asyncio.create_task(self._work())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            self._thread.shutdown(wait=False)

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            if sum(len(row.responses) for row in self._rows) < self._batch_size:
                await asyncio.sleep(self._wait)
            await self._score_rows(self._take())
            if not self._rows:
                self._arrived.clear()

    def _take(self) -> list[_Row]:
        """Take the oldest row and, until the batch is full, others of its kind."""
        kind = self._rows[0].kind
        most = max(1, self._batch_size // max(1, len(self._rows[0].responses)))
        taken: list[_Row] = []
        left: list[_Row] = []
        for row in self._rows:
            (taken if row.kind == kind and len(taken) < most else left).append(row)
        self._rows = left
        return taken

    async def _score_rows(self, rows: list[_Row]) -> None:
        table = await asyncio.get_running_loop().run_in_executor(self._thread, self._call, rows)
        if isinstance(table, BaseException):
            if len(rows) > 1:  # only the wrong request must fail, not those joined with it
                for row in rows:
                    await self._score_rows([row])
                return
            refusal = _refusal(self._scorer.name, table)
            if not rows[0].scores.done():
                rows[0].scores.set_exception(refusal)
            return
        for row, scores in zip(rows, table, strict=True):
            if not row.scores.done():  # its client has left
                row.scores.set_result(scores)

    def _call(self, rows: list[_Row]) -> list[list[float]] | BaseException:
        """Return the scores, or any error of the scorer: raised, `SystemExit` and others would end the server."""
        columns = {name: [row.columns[name] for row in rows] for name in rows[0].columns}
        try:
            return score(self._scorer, [row.prompt for row in rows], [row.responses for row in rows], **columns)
        except BaseException as error:
            return error


class _Answer(JSONResponse):
    """JSON in ASCII: half a surrogate pair, which JSON may hold in `id`, has no other encoding."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode()


def _refusal(name: str, error: BaseException) -> HTTPException:
    if isinstance(error, UserError):
        return HTTPException(400, str(error))
    if isinstance(error, ScorerError):
        return HTTPException(500, str(error))
    _log.error("the scorer %s failed", name, exc_info=error)
    told = traceback.format_exception_only(error)[-1].strip()  # also of an error that cannot be printed
    return HTTPException(500, f"the scorer {name} failed, {told}.")


def _check_token(request: Request, token: str | None) -> None:
    if token is None:
        return
    given = request.headers.get("Authorization", "")
    # compare_digest takes the same time wherever the two differ, so a token cannot be guessed letter by letter
    if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
        raise HTTPException(401, "the header Authorization: Bearer TOKEN is missing or wrong.")


async def _read_json(request: Request, limit: int) -> Any:
    # A web page may send text or forms to this machine unasked, but not JSON.
    if request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "the request must have Content-Type: application/json.")
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > limit:
            raise HTTPException(413, f"the request is longer than {limit} bytes.")
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise HTTPException(400, "the request is not JSON.") from None


async def _say_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _Answer({"error": error.detail}, status_code=error.status_code, headers=error.headers)
