"""The client of scorers on other machines: its bounds, and what an answer that never comes ends in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from align.errors import ScorerError, UserError
from align.scoring.identity import settings_identity
from align.settings.type_checks import Settings
from align.system.http_client import HttpClient, NoAnswerError, Question
from align.system.network import read_token

__all__ = ["Remote"]

T = TypeVar("T")

_UNSCORED = (
    *("timeout", "connect_timeout", "retries", "backoff", "max_answer_bytes", "concurrency", "batch_size"),
    *("token_env", "api_key_env", "cache", "prompt_price", "completion_price"),
)


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
        """POST each body as JSON; return what `read` makes of (index, answer): see :class:`HttpClient`.

        Raises:
            ScorerError: A request failed for good; the others are cancelled.
            UserError: A body cannot be written as JSON.
        """
        client = HttpClient(
            token=None if token_env is None else read_token("token_env", token_env),
            timeout=self.timeout,
            connect_timeout=self.connect_timeout,
            retries=self.retries,
            backoff=self.backoff,
            max_answer_bytes=self.max_answer_bytes,
            if_slow="raise timeout in the scorer's settings (reward.timeout)",
            if_long="raise max_answer_bytes in the scorer's settings (reward.max_answer_bytes)",
        )
        try:
            return client.ask([Question(url, body) for body in bodies], read, concurrency=concurrency)
        except NoAnswerError as error:
            raise ScorerError(f"{error.asked} and gave no scores: {error.why}.") from None
