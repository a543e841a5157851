"""Score against KL of a method whose tie to the reference is made weaker and stronger, and which line lies above.

A method is a curve, not a point: with a weaker tie it goes further from the start model. Two methods are compared where
both go: over the KL that both lines reach, the mean of the difference of the lines,

    gap = 1/(b − a) · ∫_a^b f₁(x) − f₂(x) dx

where f joins the points (mean KL, mean score) of a method by straight lines, in order of KL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from align.comparison.differences import LEVEL
from align.evaluation.statistics import holm

__all__ = ["Frontier", "Gap", "Point", "gap", "sentences"]

Array = NDArray[np.float64]

_RESAMPLES = 1000
_STEPS = 101
_Z = float(norm.ppf(0.975))


@dataclass(frozen=True)
class Point:
    """One run, by prompt: the same prompts for all points."""

    strength: float
    """Of the tie."""
    kl: Sequence[float]
    scores: Sequence[float]

    @property
    def place(self) -> tuple[float, float]:
        """Mean KL and mean score."""
        return float(np.mean(self.kl)), float(np.mean(self.scores))


@dataclass(frozen=True)
class Frontier:
    """The runs of a method with ties of several strengths."""

    setting: str
    """That sets the strength."""
    points: Sequence[Point]

    @property
    def line(self) -> list[Point]:
        """The points in order of KL."""
        return sorted(self.points, key=lambda point: point.place)

    def plain(self) -> dict[str, Any]:
        """Plain values for JSON."""
        places = [(point.strength, *point.place) for point in self.line]
        return {
            "setting": self.setting,
            "points": [{"strength": strength, "kl": kl, "score": score} for strength, kl, score in places],
        }


@dataclass(frozen=True)
class Gap:
    """How far one line lies above another, where both are."""

    mean: float
    low: float
    """Of the 95 % interval over prompts."""
    high: float
    p: float
    """Two-sided, of no difference."""
    kl: tuple[float, float]
    """From where to where both lines go."""


def gap(first: Frontier, second: Frontier) -> Gap | None:
    """Return the gap of the module's docstring; None where no KL is reached by both.

    Its standard error is that of 1,000 bootstrap samples of the prompts; the runs are taken as they are.
    """
    kl = [sorted(point.place[0] for point in of.points) for of in (first, second)]
    low, high = max(of[0] for of in kl), min(of[-1] for of in kl)
    if not low < high:
        return None
    x = np.linspace(low, high, _STEPS)
    n = len(first.points[0].scores)
    rng = np.random.default_rng(0)
    weights_BN = np.concatenate([np.ones((1, n)), rng.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES)]) / n
    apart_BX = _lines(first, weights_BN, x) - _lines(second, weights_BN, x)
    gaps_B: Array = np.asarray(np.trapezoid(apart_BX, x, axis=1)) / (high - low)
    mean, error = float(gaps_B[0]), float(gaps_B[1:].std(ddof=1))
    p = 2 * float(norm.sf(abs(mean) / error)) if error > 0 else float(mean == 0)
    return Gap(mean, mean - _Z * error, mean + _Z * error, p, (low, high))


def _lines(frontier: Frontier, weights_BN: Array, x: Array) -> Array:
    """Scores (B, len(x)) of the line that each weighting of the prompts gives."""
    kl_BJ = weights_BN @ np.array([point.kl for point in frontier.points]).T
    score_BJ = weights_BN @ np.array([point.scores for point in frontier.points]).T
    order_BJ = np.argsort(kl_BJ, axis=1)
    sorted_kl, sorted_scores = (np.take_along_axis(of, order_BJ, axis=1) for of in (kl_BJ, score_BJ))
    return np.stack([np.interp(x, *line) for line in zip(sorted_kl, sorted_scores, strict=True)])


def sentences(frontiers: Mapping[str, Frontier], seed: int) -> list[str]:
    """Say which line lies above which where both go, at .05 corrected for the number of pairs (Holm)."""
    gaps = {pair: found for pair in combinations(frontiers, 2) if (found := gap(*(frontiers[name] for name in pair)))}
    apart = [pair for pair in combinations(frontiers, 2) if pair not in gaps]
    p = holm({"\n".join(pair): found.p for pair, found in gaps.items()})
    said: list[str] = []
    same: list[str] = []
    for (first, second), found in gaps.items():
        if p[f"{first}\n{second}"] >= LEVEL:
            same.append(f"{first} and {second}")
            continue
        above, below = (first, second) if found.mean > 0 else (second, first)
        low, high = sorted((found.low, found.high)) if found.mean > 0 else sorted((-found.low, -found.high))
        said.append(
            f"At equal KL ({found.kl[0]:.2f} to {found.kl[1]:.2f} nats, where both go) {above} lies above {below}, by "
            f"{abs(found.mean):.3f} on average [{low:.3f}, {high:.3f}] (runs of seed {seed})."
        )
    if same:
        said.append(f"At equal KL these lines cannot be told apart (runs of seed {seed}): {', '.join(same)}.")
    if apart:
        said.append(f"No KL is reached by both of: {', '.join(' and '.join(pair) for pair in apart)}.")
    return said
