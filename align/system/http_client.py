"""An HTTP client with bounds on time, bytes and repetitions.

A failed request is repeated with growing pauses if that can help. After the last one a `NoAnswerError` says why; an
answer is never made up.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import wait
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

from align.errors import UserError
from align.system.signals import stop_if_alone

if TYPE_CHECKING:
    import ssl

__all__ = ["HttpClient", "NoAnswerError", "Question"]

T = TypeVar("T")

_LONGEST_PAUSE = 60.0
_REPEATED = (408, 425, 429)  # of the 4xx, those that say "later"; 5xx are repeated as well
_REASON_BYTES = 4096  # most that is read of an error message
_GLANCE = 0.2  # seconds between two calls of `between`

_log = logging.getLogger(__name__)
_pauses = random.Random()  # of its own: a repeated request changes nothing that is drawn


class NoAnswerError(Exception):
    """A request failed for good."""

    def __init__(self, url: str, times: int, reason: str, remedy: str, status: int | None) -> None:
        asked = "once" if times == 1 else f"{times} times"
        super().__init__(f"{url} was asked {asked}: {reason}; {remedy}.")
        self.asked, self.why, self.status = f"{url} was asked {asked}", f"{reason}; {remedy}", status


@dataclass(frozen=True)
class Question:
    """One request."""

    url: str
    body: Mapping[str, Any] | None = None
    """Sent by POST as JSON; None: a GET."""
    is_json: bool = True
    """The answer must be JSON; otherwise it is not looked at."""


@dataclass(frozen=True, kw_only=True)
class HttpClient:
    """The client and its bounds."""

    token: str | None
    """Sent as ``Authorization: Bearer …``; no message ever shows it."""
    timeout: float
    """Seconds for one whole answer."""
    connect_timeout: float
    """Seconds to reach the server."""
    retries: int
    """Repetitions of a failed request."""
    backoff: float
    """Seconds before the first repetition; doubled each time up to a minute, plus a random part."""
    max_answer_bytes: int
    """Longer answers are cut off and refused."""
    if_slow: str
    """Remedy: lets an answer take longer, with the setting's name as the user types it."""
    if_long: str
    """Remedy: lets an answer be longer, or makes it shorter."""

    def ask(
        self,
        questions: Sequence[Question],
        read: Callable[[int, Any], T],
        *,
        concurrency: int = 1,
        between: Callable[[], None] = lambda: None,
    ) -> list[T]:
        """Ask at most `concurrency` questions at a time; return what `read` makes of (index, answer).

        `read` raises `ValueError` for a wrong answer; the request is then repeated. It runs as soon as its answer
        arrives, even if other requests fail. `between` is called while the answers are waited for and may raise, which
        cancels the requests; so does a signal that asks a run to stop.

        Raises:
            NoAnswerError: A request failed for good; the others are cancelled.
            Interrupted: See :func:`align.system.signals.stop_if_alone`.
            UserError: A body cannot be written as JSON.
        """
        contents = [_written(question) for question in questions]

        async def run() -> list[T]:
            answers: dict[int, T] = {}
            limiter = anyio.CapacityLimiter(concurrency)
            waits = httpx2.Timeout(self.timeout, connect=self.connect_timeout)
            # A proxy from the environment would see texts meant for this machine only.
            proxies = all(httpx2.URL(question.url).scheme == "https" for question in questions)
            limits = httpx2.Limits(max_connections=None)
            async with httpx2.AsyncClient(timeout=waits, verify=_tls(), trust_env=proxies, limits=limits) as client:

                async def one(index: int) -> None:
                    async with limiter:
                        attempt = partial(self._once, client, questions[index], contents[index], partial(read, index))
                        answers[index] = await self._repeat(questions[index].url, attempt)

                try:
                    async with anyio.create_task_group() as group:
                        for index in range(len(contents)):
                            group.start_soon(one, index)
                except ExceptionGroup as failures:
                    raise failures.exceptions[0] from None
            return [answers[index] for index in range(len(contents))]

        # The event loop gets its own thread: the caller's thread may have one already, as in a notebook.
        with start_blocking_portal() as portal:
            answered = portal.start_task_soon(run)
            try:
                while not wait([answered], _GLANCE).done:
                    stop_if_alone()
                    between()
            except BaseException:
                answered.cancel()
                raise
            return answered.result()

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
            raise NoAnswerError(url, times, failure.reason, failure.remedy, failure.status) from None

    async def _once(
        self, client: httpx2.AsyncClient, question: Question, content: bytes | None, read: Callable[[Any], T]
    ) -> T:
        # Compressed, a short answer could unpack to any size.
        headers = {"Accept-Encoding": "identity"} | ({"Accept": "application/json"} if question.is_json else {})
        if content is not None:
            headers["Content-Type"] = "application/json"
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        method = "GET" if content is None else "POST"
        try:
            with anyio.fail_after(self.timeout):
                async with client.stream(method, question.url, content=content, headers=headers) as response:
                    if response.status_code != 200:
                        raise await _refusal(response, self.token)
                    data = await self._read_body(response) if question.is_json else b"null"
        except httpx2.ConnectTimeout:
            raise _Failure(f"no connection within {self.connect_timeout:g} s", "start the server") from None
        except (TimeoutError, httpx2.TimeoutException):
            reason = f"no whole answer within {self.timeout:g} s"
            raise _Failure(reason, f"look at the server's load, or {self.if_slow}") from None
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
            f"the answer is longer than {self.max_answer_bytes} bytes", f"correct the server, or {self.if_long}"
        )
        if int(response.headers.get("Content-Length", 0)) > self.max_answer_bytes:
            raise too_long
        data = bytearray()
        async for chunk in response.aiter_raw():
            data += chunk
            if len(data) > self.max_answer_bytes:
                raise too_long
        return bytes(data)


class _Failure(Exception):
    """A failed request; `again` if repeating it can help."""

    def __init__(
        self, reason: str, remedy: str, *, again: bool = True, pause: float = 0.0, status: int | None = None
    ) -> None:
        super().__init__(reason)
        self.reason, self.remedy, self.again, self.pause, self.status = reason, remedy, again, pause, status


def _written(question: Question) -> bytes | None:
    if question.body is None:
        return None
    try:
        return json.dumps(question.body, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise UserError(
            f"A column cannot be sent to {question.url} as JSON, {error}: make it text or numbers."
        ) from None


def _failure(state: RetryCallState) -> _Failure:
    failure = state.outcome.exception() if state.outcome else None
    assert isinstance(failure, _Failure)
    return failure


async def _refusal(response: httpx2.Response, token: str | None) -> _Failure:
    status = response.status_code
    reason = f"HTTP {status}{await _explanation(response, token)}"
    if status in (401, 403):
        remedy = "put the server's token into the environment variable that the settings name"
        return _Failure(reason, remedy, again=False, status=status)
    if 300 <= status < 400:
        reason = f"{reason}, a redirection, which is not followed"
        return _Failure(reason, "give the final address", again=False, status=status)
    pause = response.headers.get("Retry-After", "")
    return _Failure(
        reason,
        "look at the server's log",
        again=status >= 500 or status in _REPEATED,
        pause=float(pause) if pause.isdecimal() else 0.0,
        status=status,
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
