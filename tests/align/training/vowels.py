"""The scorer and the evaluation of runs of several ranks, for their scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from align import Evaluator, Policy, Preferences, SamplingParams

__all__ = ["Vowels", "evaluator"]


class Vowels:
    """Scores the share of vowels."""

    name = "vowels"

    def score(self, prompts: Any, responses: Sequence[Sequence[str]], **columns: Any) -> list[list[float]]:
        """The share of each response."""
        del prompts, columns
        return [[sum(letter in "aeiou" for letter in text) / (1 + len(text)) for text in row] for row in responses]

    def identity(self) -> dict[str, str]:
        """Its name."""
        return {"name": self.name}


def evaluator(policy: Policy, heldout: Preferences) -> Evaluator:
    """Draws short answers to 11 held-out prompts."""
    sampling = SamplingParams(temperature=0.7, max_new_tokens=6)
    return Evaluator.from_preferences(
        policy, heldout, heldout, max_length=200, limit=11, scorers=[Vowels()], sampling=sampling
    )
