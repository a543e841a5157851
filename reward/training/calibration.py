"""Accuracy and calibration of a reward model.

A reward model gives the preferred response of a pair the probability ``σ(Δ)``, Δ = r_chosen − r_rejected. Its
confidence is the probability of the response it prefers, ``σ(|Δ|)``, from ½ to 1. It is calibrated if, for example,
80 % of the pairs with a confidence of 80 % are ordered as labelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from align.evaluation.statistics import (
    Estimate,
    calibration_error,
    calibration_error_if_calibrated,
    ordered_right,
    rate,
    reliability,
)
from align.system.charts import chart

Array = NDArray[np.float64]
FEWEST = 50
"""Comparisons below which no temperature is fitted."""


@dataclass(frozen=True)
class Comparison:
    """One labelled comparison: its reward difference, and the values to group it by."""

    delta: float
    """Reward of the preferred response minus that of the other."""
    prompt: int
    """Number of its prompt; the comparisons of one are not independent."""
    longer: int
    """Length of the preferred response minus that of the other, in tokens."""
    gap: float | None = None
    """Difference of the annotator's scores, if the data has them."""
    source: str | None = None


def assess(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Return the report for ``evaluation.json``: accuracy, also by group, calibration, and correcting temperature.

    The calibration error has beside it the one of a calibrated model on as many comparisons of the same confidence.
    The temperature is None below :data:`FEWEST` comparisons.
    """
    delta = np.array([comparison.delta for comparison in comparisons])
    confidence, right = expit(np.abs(delta)), ordered_right(delta)
    temperature = fit_temperature(delta) if len(delta) >= FEWEST else None
    return {
        "accuracy": accuracy(comparisons).mean,
        "interval": asdict(accuracy(comparisons)),
        "comparisons": len(delta),
        "expected_calibration_error": calibration_error(confidence, right),
        "calibration_error_if_calibrated": calibration_error_if_calibrated(confidence),
        "temperature": temperature,
        "expected_calibration_error_with_temperature": None
        if temperature is None
        else calibration_error(expit(np.abs(delta / temperature)), right),
        "reliability": reliability(confidence, right),
        "accuracy_by": {
            "reward_difference": _by_quartile(comparisons, np.abs(delta)),
            "score_difference": _by_quartile(comparisons, _gaps(comparisons)),
            "length_difference": _by_length(comparisons),
            "source": _by_source(comparisons),
        },
    }


def accuracy(comparisons: Sequence[Comparison]) -> Estimate:
    """Share of comparisons ordered as labelled; a tie is half right."""
    delta = np.array([comparison.delta for comparison in comparisons])
    return rate(ordered_right(delta), [comparison.prompt for comparison in comparisons])


def fit_temperature(delta: Array) -> float:
    """Return the T > 0 with the smallest mean ``−log σ(Δ/T)`` (Guo et al. 2017), between 1/100 and 100."""
    from scipy.optimize import minimize_scalar

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
        error, expected = report["expected_calibration_error"], report["calibration_error_if_calibrated"]
        low, high = report["interval"]["low"], report["interval"]["high"]
        axis.set_title(
            f"accuracy {report['accuracy']:.1%} [{low:.1%}, {high:.1%}], {report['comparisons']:,} comparisons\n"
            f"calibration error {error:.3f}, of a calibrated model {expected:.3f}",
            fontsize=10,
        )
        axis.legend(fontsize=8)


def _gaps(comparisons: Sequence[Comparison]) -> Array:
    return np.array([np.nan if comparison.gap is None else comparison.gap for comparison in comparisons])


def _group(comparisons: Sequence[Comparison], chosen: NDArray[np.bool_]) -> dict[str, Any]:
    found = asdict(accuracy([comparison for comparison, wanted in zip(comparisons, chosen, strict=True) if wanted]))
    return {"accuracy": found.pop("mean"), **{name: found[name] for name in ("low", "high", "n")}}


def _by_quartile(comparisons: Sequence[Comparison], values: Array) -> dict[str, dict[str, Any]]:
    """Quartiles of a value; pairs without the value are left out."""
    known = np.isfinite(values)
    if known.sum() < 8:
        return {}
    edges = np.quantile(values[known], (0, 0.25, 0.5, 0.75, 1))
    groups: dict[str, dict[str, Any]] = {}
    for i, (low, high) in enumerate(pairwise(edges)):
        chosen = known & (values >= low) & ((values < high) | (i == 3))
        if chosen.any():
            groups[f"{low:.3g} to {high:.3g}"] = _group(comparisons, chosen)
    return groups


def _by_length(comparisons: Sequence[Comparison]) -> dict[str, dict[str, Any]]:
    longer = np.array([comparison.longer for comparison in comparisons])
    groups = {"chosen is longer": longer > 0, "equally long": longer == 0, "chosen is shorter": longer < 0}
    return {name: _group(comparisons, chosen) for name, chosen in groups.items() if chosen.any()}


def _by_source(comparisons: Sequence[Comparison]) -> dict[str, dict[str, Any]]:
    names = np.array([comparison.source or "" for comparison in comparisons])
    return {name: _group(comparisons, names == name) for name in sorted(set(names.tolist())) if name}
