"""A weighted sum of clipped scores; each scorer is also reported alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from align.errors import UserError, did_you_mean
from align.scoring.checked_scores import check_scorers, score_parts
from align.settings.type_checks import Settings

if TYPE_CHECKING:
    from align.scoring.scorer import Scorer


@dataclass(frozen=True, kw_only=True)
class WeightedSum(Settings):
    """``Σ_i w_i · clip(s_i)``; a scorer that does not apply to a response adds nothing to it."""

    scorers: Mapping[str, Scorer]
    """The scorers by a name of your choice."""
    weights: Mapping[str, float] = field(default_factory=dict[str, float])
    """Weights by the same names; default 1."""
    clip: Mapping[str, Sequence[float]] = field(default_factory=dict[str, "Sequence[float]"])
    """Lower and upper bound of the score, by the same names; default: no bounds."""
    name: str = "reward"

    def check(self) -> None:
        """Scorers that can be combined, with a weight each."""
        if not self.scorers:
            raise UserError("scorers is empty; name at least one.")
        check_scorers(**self.scorers)
        for setting in (self.weights, self.clip):
            for name in setting:
                if name not in self.scorers:
                    raise UserError(
                        f"{name!r} is not one of the scorers {', '.join(self.scorers)}."
                        + did_you_mean(name, self.scorers)
                    )
        for name, weight in self.weights.items():
            if not math.isfinite(weight):
                raise UserError(f"weights.{name}={weight} is not a finite number.")
        for name, bounds in self.clip.items():
            if len(bounds) != 2 or not bounds[0] < bounds[1]:
                raise UserError(f"clip.{name}={list(bounds)} must be two numbers, the lower first.")

    def score(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **columns: Sequence[Any]
    ) -> list[list[float]]:
        """Return the sums (P, K).

        Raises:
            ScorerError: A scorer did not return a table of scores, or none applies to a response.
        """
        parts = score_parts(self.name, self.scorers, prompts, responses, **columns)
        return [[self._sum(cell) for cell in row] for row in parts]

    def _sum(self, scores: Mapping[str, float]) -> float:
        return sum(self.weights.get(name, 1.0) * self._clipped(name, score) for name, score in scores.items())

    def _clipped(self, name: str, score: float) -> float:
        low, high = self.clip.get(name, (-math.inf, math.inf))
        return min(max(score, low), high)
