"""Accuracy and calibration of a reward model.

A reward model gives the preferred response of a pair the probability ``σ(Δ)``, Δ = r_chosen − r_rejected. Its
confidence is the probability of the response it prefers, ``σ(|Δ|)``, from ½ to 1. It is calibrated if, for example,
80 % of the pairs with a confidence of 80 % are ordered as labelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit

from align.evaluation.measurement import ordered_right
from align.system.charts import chart

Array = NDArray[np.float64]
BINS = 10


@dataclass(frozen=True)
class Comparison:
    """One labelled comparison: its reward difference, and the values to group it by."""

    delta: float
    """Reward of the preferred response minus that of the other."""
    longer: int
    """Length of the preferred response minus that of the other, in tokens."""
    gap: float | None = None
    """Difference of the annotator's scores, if the data has them."""
    source: str | None = None


def assess(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Return the report for ``evaluation.json``: accuracy, also by group, calibration, and correcting temperature."""
    delta = np.array([comparison.delta for comparison in comparisons])
    temperature = fit_temperature(delta)
    return {
        "accuracy": accuracy(delta),
        "comparisons": len(delta),
        "expected_calibration_error": expected_calibration_error(delta),
        "temperature": temperature,
        "expected_calibration_error_with_temperature": expected_calibration_error(delta / temperature),
        "reliability": reliability(delta),
        "accuracy_by": {
            "reward_difference": _by_quartile(delta, np.abs(delta)),
            "score_difference": _by_quartile(delta, _gaps(comparisons)),
            "length_difference": _by_length(comparisons, delta),
            "source": _by_source(comparisons, delta),
        },
    }


def accuracy(delta: Array) -> float:
    """Share of comparisons ordered as labelled; a tie is half right."""
    return float(np.mean(ordered_right(delta)))


def reliability(delta: Array, bins: int = BINS) -> list[dict[str, float]]:
    """Return mean confidence, accuracy and size of each bin of confidence that is not empty."""
    confidence, right = expit(np.abs(delta)), ordered_right(delta)
    place = np.minimum((2 * (confidence - 0.5) * bins).astype(int), bins - 1)
    return [
        {
            "confidence": float(confidence[place == b].mean()),
            "accuracy": float(right[place == b].mean()),
            "n": int((place == b).sum()),
        }
        for b in range(bins)
        if (place == b).any()
    ]


def expected_calibration_error(delta: Array, bins: int = BINS) -> float:
    """``Σ_b n_b/n · |accuracy_b − confidence_b|`` (Guo et al. 2017, eq. 3)."""
    table = reliability(delta, bins)
    return sum(row["n"] * abs(row["accuracy"] - row["confidence"]) for row in table) / len(delta)


def fit_temperature(delta: Array) -> float:
    """Return the T > 0 with the smallest mean ``−log σ(Δ/T)`` (Guo et al. 2017), between 1/100 and 100."""

    def loss(log_temperature: float) -> float:
        return float(np.mean(np.logaddexp(0, -delta / np.exp(log_temperature))))

    bound = float(np.log(100))
    found: Any = minimize_scalar(loss, bounds=(-bound, bound), method="bounded")
    return float(np.exp(found.x))


def plot_reliability(report: dict[str, Any], picture: Path) -> None:
    """Plot accuracy against confidence, with the number of pairs at each point."""
    table = report["reliability"]
    confidence, right = ([row[name] for row in table] for name in ("confidence", "accuracy"))
    with chart(picture, (5, 5)) as (axis,):
        axis.plot([0.5, 1], [0.5, 1], linestyle="--", color="grey", linewidth=1, label="calibrated")
        axis.plot(confidence, right, marker="o", label="held-out pairs")
        for row in table:
            place = (row["confidence"], row["accuracy"])
            axis.annotate(row["n"], place, (4, -12), textcoords="offset points", fontsize=8)
        axis.set(xlabel="confidence σ(|Δ|)", ylabel="ordered as labelled", xlim=(0.48, 1.02), ylim=(0, 1.03))
        error = report["expected_calibration_error"]
        axis.set_title(f"accuracy {report['accuracy']:.1%}, calibration error {error:.3f}", fontsize=10)
        axis.legend(fontsize=8)


def _gaps(comparisons: Sequence[Comparison]) -> Array:
    return np.array([np.nan if comparison.gap is None else comparison.gap for comparison in comparisons])


def _group(delta: Array, chosen: NDArray[np.bool_]) -> dict[str, float]:
    return {"accuracy": accuracy(delta[chosen]), "n": int(chosen.sum())}


def _by_quartile(delta: Array, values: Array) -> dict[str, dict[str, float]]:
    """Quartiles of a value; pairs without the value are left out."""
    known = np.isfinite(values)
    if known.sum() < 8:
        return {}
    edges = np.quantile(values[known], (0, 0.25, 0.5, 0.75, 1))
    groups: dict[str, dict[str, float]] = {}
    for i, (low, high) in enumerate(pairwise(edges)):
        chosen = known & (values >= low) & ((values < high) | (i == 3))
        if chosen.any():
            groups[f"{low:.3g} to {high:.3g}"] = _group(delta, chosen)
    return groups


def _by_length(comparisons: Sequence[Comparison], delta: Array) -> dict[str, dict[str, float]]:
    longer = np.array([comparison.longer for comparison in comparisons])
    groups = {"chosen is longer": longer > 0, "equally long": longer == 0, "chosen is shorter": longer < 0}
    return {name: _group(delta, chosen) for name, chosen in groups.items() if chosen.any()}


def _by_source(comparisons: Sequence[Comparison], delta: Array) -> dict[str, dict[str, float]]:
    names = np.array([comparison.source or "" for comparison in comparisons])
    return {name: _group(delta, names == name) for name in sorted(set(names.tolist())) if name}
