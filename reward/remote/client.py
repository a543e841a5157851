"""An HTTP client with bounds on time, bytes, repetitions, and addresses that texts may be sent to.

A failed request is repeated with growing pauses if that can help. After the last one a `ScorerError` says why; an
answer is never made up.
"""

from __future__ import annotations

import json
import logging
import math
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import httpx2
from anyio.from_thread import start_blocking_portal
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential,
)

from align.errors import ScorerError, UserError
from align.scoring.identity import settings_identity
from align.settings.type_checks import Settings
from align.system.network import is_loopback, read_token

if TYPE_CHECKING:
    import ssl

__all__ = ["Remote", "check_address"]

T = TypeVar("T")

_LONGEST_PAUSE = 60.0
_REPEATED = (408, 425, 429)  # of the 4xx, those that say "later"; 5xx are repeated as well
_REASON_BYTES = 4096  # most that is read of an error message

_UNSCORED = (
    *("timeout", "connect_timeout", "retries", "backoff", "max_answer_bytes", "concurrency", "batch_size"),
    *("token_env", "api_key_env", "cache", "prompt_price", "completion_price"),
)

_log = logging.getLogger(__name__)
_pauses = random.Random()  # of its own: a repeated request changes nothing that is drawn


@dataclass(frozen=True, kw_only=True)
class Remote(Settings):
    """A server's client and its bounds."""

    timeout: float = 120.0
    """Seconds for one whole answer."""
    connect_timeout: float = 10.0
    """Seconds to reach the server."""
    retries: int = 5
    """Repetitions of a failed request."""
    backoff: float = 1.0
    """Seconds before the first repetition; doubled each time up to a minute, plus a random part."""
    max_answer_bytes: int = 2**20
    """Longer answers are cut off and refused."""

    def check(self) -> None:
        """Ranges."""
        for name in ("timeout", "connect_timeout", "backoff", "max_answer_bytes"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise UserError(f"{name} must be above 0, not {value}.")
        if self.retries < 0:
            raise UserError(f"retries must be at least 0, not {self.retries}.")

    def identity(self) -> dict[str, Any]:
        """Address and settings, without what bounds or bills the requests."""
        return settings_identity(self, without=_UNSCORED)

    def ask(
        self,
        url: str,
        token_env: str | None,
        bodies: Sequence[Mapping[str, Any]],
        read: Callable[[int, Any], T],
        *,
        concurrency: int = 1,
    ) -> list[T]:
        """POST each body as JSON, at most `concurrency` at a time; return what `read` makes of (index, answer).

        `read` raises `ValueError` for a wrong answer; the request is then repeated. It runs as soon as its answer
        arrives, even if other requests fail.

        Raises:
            ScorerError: A request failed for good; the others are cancelled.
            UserError: A body cannot be written as JSON.
        """
        token = None if token_env is None else read_token("token_env", token_env)
        try:
            contents = [json.dumps(body, allow_nan=False).encode() for body in bodies]
        except (TypeError, ValueError) as error:
            raise UserError(f"A column cannot be sent to {url} as JSON, {error}: make it text or numbers.") from None

        async def run() -> list[T]:
            answers: dict[int, T] = {}
            limiter = anyio.CapacityLimiter(concurrency)
            # A proxy from the environment would see texts meant for this machine only.
            proxies = httpx2.URL(url).scheme == "https"
            waits = httpx2.Timeout(self.timeout, connect=self.connect_timeout)
            async with httpx2.AsyncClient(timeout=waits, verify=_tls(), trust_env=proxies) as client:

                async def one(index: int) -> None:
                    async with limiter:
                        attempt = partial(self._once, client, url, token, contents[index], partial(read, index))
                        answers[index] = await self._repeat(url, attempt)

                try:
                    async with anyio.create_task_group() as group:
                        for index in range(len(contents)):
                            group.start_soon(one, index)
                except ExceptionGroup as failures:
                    raise failures.exceptions[0] from None
            return [answers[index] for index in range(len(contents))]

        # The event loop gets its own thread: the caller's thread may have one already, as in a notebook.
        with start_blocking_portal() as portal:
            return portal.call(run)

    async def _repeat(self, url: str, attempt: Callable[[], Awaitable[T]]) -> T:
        grow = wait_exponential(multiplier=self.backoff, max=_LONGEST_PAUSE)

        def pause(state: RetryCallState) -> float:
            grown = grow(state) + _pauses.uniform(0, self.backoff)
            return min(max(grown, _failure(state).pause), _LONGEST_PAUSE)

        def say(state: RetryCallState) -> None:
            seconds = state.next_action.sleep if state.next_action else 0.0
            _log.warning("%s: %s; asking again in %.1f s", url, _failure(state).reason, seconds)

        retrying = AsyncRetrying(
            stop=stop_after_attempt(self.retries + 1),
            wait=pause,
            retry=retry_if_exception(lambda error: isinstance(error, _Failure) and error.again),
            before_sleep=say,
            reraise=True,
        )
        try:
            return await retrying(attempt)
        except _Failure as failure:
            times = retrying.statistics["attempt_number"]
            asked = "once" if times == 1 else f"{times} times"
            raise ScorerError(
                f"{url} was asked {asked} and gave no scores: {failure.reason}; {failure.remedy}."
            ) from None

    async def _once(
        self, client: httpx2.AsyncClient, url: str, token: str | None, content: bytes, read: Callable[[Any], T]
    ) -> T:
        # Compressed, a short answer could unpack to any size.
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        try:
            with anyio.fail_after(self.timeout):
                async with client.stream("POST", url, content=content, headers=headers) as response:
                    if response.status_code != 200:
                        raise await _refusal(response, token)
                    data = await self._read_body(response)
        except httpx2.ConnectTimeout:
            raise _Failure(f"no connection within {self.connect_timeout:g} s", "start the server") from None
        except (TimeoutError, httpx2.TimeoutException):
            reason = f"no whole answer within {self.timeout:g} s"
            raise _Failure(reason, "look at the server's load, or raise timeout") from None
        except httpx2.TransportError as error:
            raise _Failure(
                _clean(str(error) or type(error).__name__), "start the server, or correct the address"
            ) from None
        try:
            return read(_parse(data))
        except ValueError as error:
            raise _Failure(f"the answer is wrong, {error}", "correct the server") from None

    async def _read_body(self, response: httpx2.Response) -> bytes:
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise _Failure(
                f"the answer is {_clean(kind) or 'of no type'}, not JSON", "correct the server or the address"
            )
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise _Failure("the answer is compressed, which was not asked for", "switch compression off in the server")
        too_long = _Failure(
            f"the answer is longer than {self.max_answer_bytes} bytes", "correct the server, or raise max_answer_bytes"
        )
        if int(response.headers.get("Content-Length", 0)) > self.max_answer_bytes:
            raise too_long
        data = bytearray()
        async for chunk in response.aiter_raw():
            data += chunk
            if len(data) > self.max_answer_bytes:
                raise too_long
        return bytes(data)


def check_address(field: str, url: str, token_field: str, token_env: str | None) -> None:
    """Raise `UserError` unless texts and the token may be sent to `url`."""
    if not url:
        raise UserError(f"{field} is missing: give the address of a server, such as http://127.0.0.1:8000/score.")
    try:
        parts = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise UserError(f"{field} is not an address: {error}.") from None
    if parts.userinfo or parts.query or parts.fragment:
        # The address is printed, and a secret in it would be too.
        raise UserError(
            f"{field} must be an address without user, password, query or fragment: "
            f"name the environment variable of a token in {token_field}."
        )
    if parts.scheme not in ("http", "https") or not parts.host:
        raise UserError(f"{field}={url!a} is not an address: write http://HOST:PORT/PATH, or https://.")
    if token_env is not None:
        read_token(token_field, token_env)
    if is_loopback(parts.host):
        return
    if parts.scheme == "http":
        raise UserError(f"{field}={url!a} is not encrypted and not on this machine: use https://.")
    if token_env is None:
        raise UserError(
            f"{field}={url!a} is another machine: name the environment variable of its token in {token_field}."
        )


class _Failure(Exception):
    """A failed request; `again` if repeating it can help."""

    def __init__(self, reason: str, remedy: str, *, again: bool = True, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.reason, self.remedy, self.again, self.pause = reason, remedy, again, pause


def _failure(state: RetryCallState) -> _Failure:
    failure = state.outcome.exception() if state.outcome else None
    assert isinstance(failure, _Failure)
    return failure


async def _refusal(response: httpx2.Response, token: str | None) -> _Failure:
    status = response.status_code
    reason = f"HTTP {status}{await _explanation(response, token)}"
    if status in (401, 403):
        return _Failure(
            reason, "put the server's token into the environment variable that the settings name", again=False
        )
    if 300 <= status < 400:
        return _Failure(f"{reason}, a redirection, which is not followed", "give the final address", again=False)
    pause = response.headers.get("Retry-After", "")
    return _Failure(
        reason,
        "look at the server's log",
        again=status >= 500 or status in _REPEATED,
        pause=float(pause) if pause.isdecimal() else 0.0,
    )


async def _explanation(response: httpx2.Response, token: str | None) -> str:
    """The server's error message: ``{"error": "…"}``, or OpenAI's ``{"error": {"message": "…"}}``."""
    data = b""
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) > _REASON_BYTES:
            return ""
    try:
        error = _parse(data)["error"]
        text = str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return ""
    return f", {_clean(text.replace(token, '…') if token else text)}"


def _parse(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None


def _clean(text: str) -> str:
    """Text from outside, cut, without control characters and final dot."""
    return ascii(text)[1:-1][:200].rstrip(".")


@cache
def _tls() -> ssl.SSLContext:
    """The system's certificates, read once: that takes longer than a request."""
    return httpx2.create_ssl_context()
