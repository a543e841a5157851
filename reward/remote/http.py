"""Scores from a reward server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from align.errors import UserError
from align.system.network import check_address
from reward.remote.client import Remote
from reward.remote.protocol import DIALECTS, Question

__all__ = ["HttpScorer"]


@dataclass(frozen=True, kw_only=True)
class HttpScorer(Remote):
    """Asks a reward server, such as `scripts/serve_reward.py` or one written for OpenRLHF.

    `reward.remote.protocol` describes both protocols. The type, size, shape and numbers of every answer are checked; if
    no right answer comes, also after repetitions, `ScorerError` is raised.
    """

    url: str = ""
    """Address of the server: http on this machine, https with a token elsewhere."""
    protocol: Literal["align", "openrlhf"] = "align"
    """``openrlhf`` has no request id and sends only the column ``answer``."""
    token_env: str | None = None
    """Environment variable that holds the server's token."""
    batch_size: int = 64
    """Most responses in one request; those of one prompt stay together."""

    name = "http"
    costly: ClassVar[bool] = True
    """It loads weights or asks another machine, and is not tried before a run."""

    def check(self) -> None:
        """Ranges, and an address that texts may be sent to."""
        super().check()
        check_address("url", self.url, "token_env", self.token_env)
        if self.batch_size < 1:
            raise UserError(f"batch_size must be at least 1, not {self.batch_size}.")

    def score(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **columns: Sequence[Any]
    ) -> list[list[float]]:
        """Return the server's scores (P, K).

        Raises:
            ScorerError: The server gave no scores.
        """
        if not prompts:
            return []
        dialect = DIALECTS[self.protocol]
        questions = self._split(prompts, responses, columns)
        parts = self.ask(
            self.url,
            self.token_env,
            [dialect.write_question(question) for question in questions],
            lambda index, answer: dialect.read_scores(questions[index], answer),
        )
        return [row for part in parts for row in part]

    def _split(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], columns: dict[str, Sequence[Any]]
    ) -> list[Question]:
        assert len(responses) == len(prompts), "one list of responses per prompt"
        assert all(len(values) == len(prompts) for values in columns.values()), "one value per prompt in each column"
        rows = max(1, self.batch_size // max(1, *map(len, responses)))
        return [
            Question(
                prompts=prompts[start : start + rows],
                responses=responses[start : start + rows],
                columns={name: values[start : start + rows] for name, values in columns.items()},
            )
            for start in range(0, len(prompts), rows)
        ]
