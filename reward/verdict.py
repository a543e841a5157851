"""The common part of rules and verifiers: a score with its reason, and the loop over prompts and responses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from align.errors import UserError
from align.settings.type_checks import Settings
from reward.tags import ReadsTags


@dataclass(frozen=True)
class Verdict:
    """The score of one response, with the reason."""

    score: float
    reason: str


class Rule(Settings, ABC):
    """A scorer that looks at one response alone."""

    @abstractmethod
    def judge(self, response: str) -> Verdict:
        """Score one response."""

    def score(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **_columns: Sequence[Any]
    ) -> list[list[float]]:
        """Return one row per prompt, one number per response."""
        return [[self.judge(text).score for text in row] for _, row in zip(prompts, responses, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Verifier(ReadsTags, ABC):
    """A scorer that compares one response with the ``answer`` column of its prompt."""

    name: str

    @abstractmethod
    def judge(self, response: str, answer: str) -> Verdict:
        """Score one response against the right answer."""

    def score(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **columns: Sequence[Any]
    ) -> list[list[float]]:
        """Return one row per prompt, one number per response.

        Raises:
            UserError: A prompt has no answer; it is never scored 0 instead.
        """
        answer = columns.get("answer")
        if answer is None:
            raise UserError(f"the {self.name} scorer needs the data column `answer`; add it or choose another scorer.")
        rows: list[list[float]] = []
        for number, (_, row, right) in enumerate(zip(prompts, responses, answer, strict=True)):
            if right is None or not str(right).strip():
                raise UserError(
                    f"the {self.name} scorer finds no `answer` for prompt {number} of this batch; "
                    "fill in the column or leave the row out."
                )
            rows.append([self.judge(text, str(right)).score for text in row])
        return rows
