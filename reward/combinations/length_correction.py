"""A length penalty on a scorer, against scorers that prefer long answers.

For a response of n units: ``score − weight·max(0, n − free) / per``. The penalty is 0 up to ``free`` units and has the
slope ``weight / per`` beyond: ``per`` more units cost ``weight``, without bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from align.errors import UserError
from align.scoring.checked_scores import ScoreTable, check_scorers, require_all, score_part
from align.settings.type_checks import Settings
from reward.verifiers.rules import length

if TYPE_CHECKING:
    from align.scoring.scorer import Scorer


@dataclass(frozen=True, kw_only=True)
class LengthCorrected(Settings):
    """A scorer minus a linear length penalty; it applies where that scorer applies."""

    base: Scorer
    """The scorer to correct."""
    weight: float
    """Cost of ``per`` units, in the unit of the score."""
    per: int = 100
    """Units that cost ``weight``."""
    free: int = 0
    """Units that cost nothing."""
    unit: Literal["words", "characters"] = "words"
    """The unit of length; words are separated by white space."""
    name: str = ""
    """Name in logs and tables; empty: that of the scorer with ``_length_corrected``."""

    def check(self) -> None:
        """Check the ranges; derive the name if none is given."""
        check_scorers(base=self.base)
        if not 0 <= self.weight < float("inf"):
            raise UserError(f"length correction: weight={self.weight} must be a finite number of at least 0.")
        if self.per < 1 or self.free < 0:
            raise UserError(f"length correction: per={self.per} must be at least 1 and free={self.free} at least 0.")
        if not self.name:
            object.__setattr__(self, "name", f"{self.base.name}_length_corrected")

    def score(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **columns: Sequence[Any]
    ) -> list[list[float]]:
        """Return P × K corrected scores.

        Raises:
            ScorerError: The scorer does not apply to a response.
        """
        return require_all(self.score_where_it_applies(prompts, responses, **columns), self.name)

    def score_where_it_applies(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **columns: Sequence[Any]
    ) -> ScoreTable:
        """Return P × K corrected scores, ``None`` where the scorer does not apply."""
        table = score_part("base", self.base, prompts, responses, **columns)
        return [
            [None if value is None else value - self.penalty(text) for value, text in zip(values, texts, strict=True)]
            for values, texts in zip(table, responses, strict=True)
        ]

    def penalty(self, response: str) -> float:
        """Return the penalty of a response."""
        return self.weight * max(0, length(response, self.unit) - self.free) / self.per
