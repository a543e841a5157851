"""An ensemble: the mean, minimum, or mean minus deviation of several scorers.

Coste et al. (2024, "Reward Model Ensembles Help Mitigate Overoptimization"), for the scores r_1 … r_n of one response:

- ``mean``: ``Σ r_i / n``
- ``min``: worst-case optimisation, eq. 3, ``min r_i``
- ``mean_minus_std``: uncertainty-weighted optimisation, eq. 4, but with the standard deviation where the paper has the
  variance, so that λ has no unit: ``Σ r_i / n − λ·sqrt(Σ (r_i − mean)² / n)``

A scorer that does not apply to a response (``None`` of a TRL function) is left out for that response, as in TRL's sum.
If none applies, that is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any, Literal

from align.errors import UserError
from align.scoring.checked_scores import check_scorers, score_parts
from align.settings.type_checks import Settings

if TYPE_CHECKING:
    from align.scoring.scorer import Scorer


@dataclass(frozen=True, kw_only=True)
class Ensemble(Settings):
    """One score from the scores of several scorers."""

    scorers: Mapping[str, Scorer]
    """The scorers by a name of your choice; their scores should be on one scale."""
    combine: Literal["mean", "min", "mean_minus_std"] = "mean"
    """See the module's docstring."""
    penalty: float = 0.5
    """λ of ``mean_minus_std``; .5 is the best of Coste et al."""
    name: str = "ensemble"

    def check(self) -> None:
        """Scorers that can be combined."""
        if not self.scorers:
            raise UserError("ensemble: there are no scorers to combine; name at least one.")
        check_scorers(**self.scorers)
        if not 0 <= self.penalty < float("inf"):
            raise UserError(f"ensemble: penalty={self.penalty} must be a finite number of at least 0.")

    def score(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **columns: Sequence[Any]
    ) -> list[list[float]]:
        """Return P × K combined scores.

        Raises:
            ScorerError: No scorer applies to a response.
        """
        parts = score_parts(self.name, self.scorers, prompts, responses, **columns)
        return [[self._combined(list(cell.values())) for cell in row] for row in parts]

    def _combined(self, values: list[float]) -> float:
        if self.combine == "min":
            return min(values)
        return fmean(values) - (self.penalty * pstdev(values) if self.combine == "mean_minus_std" else 0.0)
