"""Two answers to a prompt that a person compares."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from align.data.load_report import RowError
from align.data.validation import valid_row

__all__ = ["Answer", "Pair", "learnable", "left_answer"]


@dataclass(frozen=True)
class Answer:
    """A drawn answer."""

    text: str
    ids: list[int]
    """Its tokens, with which it is learnt from as it was drawn."""
    finished: bool
    """It ended by itself and was not cut off."""
    score: float | None = None
    """By the reward model that orders the pairs."""


@dataclass(frozen=True)
class Pair:
    """A prompt with two answers: of one policy, or the first of the policy and the second of the other run."""

    key: str
    """Of the prompt."""
    row: Mapping[str, Any]
    """Prompt, tools, answer and source in the pairwise format, and ``drawn_with``, the tokenizer of the answers."""
    answers: tuple[Answer, Answer]

    @classmethod
    def read(cls, line: Mapping[str, Any]) -> Pair:
        """Read a line of ``pairs.jsonl``."""
        first, second = (Answer(**answer) for answer in line["answers"])
        return cls(line["key"], line["row"], (first, second))

    @property
    def same(self) -> bool:
        """Whether the answers are one text, so that there is nothing to judge."""
        return self.answers[0].text == self.answers[1].text

    @property
    def gap(self) -> float:
        """Difference of the two scores, at least 0: the smaller, the less sure is the reward model."""
        first, second = (answer.score for answer in self.answers)
        assert first is not None
        assert second is not None
        return abs(first - second)

    def labelled(self, preferred: int) -> dict[str, Any]:
        """Return the row of the pairwise format in which this answer is the chosen one."""
        row = {name: value for name, value in self.row.items() if value is not None}
        for side, answer in (("chosen", self.answers[preferred]), ("rejected", self.answers[1 - preferred])):
            row[side] = answer.text
            row[f"{side}_drawn"] = answer.ids
        return row


def learnable(row: Mapping[str, Any]) -> bool:
    """Return whether the pairwise format takes the row: it does not where an answer is blank."""
    try:
        valid_row(row, lambda _: None)
    except RowError:
        return False
    return True


def left_answer(seed: int, annotator: str, key: str) -> int:
    """Return which answer stands on the left: at random, and the same whenever the pair is shown to the annotator."""
    return random.Random(f"{seed} {annotator} {key}").randrange(2)


def in_order(pairs: Sequence[Pair], *, active: bool) -> list[Pair]:
    """Return the pairs as they were drawn, or first those of which the reward model is least sure."""
    return sorted(pairs, key=lambda pair: pair.gap) if active else list(pairs)
