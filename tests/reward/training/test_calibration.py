"""The report on a reward model's held-out comparisons, by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from reward.training.calibration import FEWEST, Comparison, assess, fit_temperature


def comparisons(*deltas: float, gaps: tuple[float | None, ...] = (), **values: Any) -> list[Comparison]:
    return [
        Comparison(delta=delta, prompt=i, longer=0, gap=gaps[i] if gaps else None, **values)
        for i, delta in enumerate(deltas)
    ]


def test_quartiles_hold_every_comparison_once() -> None:
    """The quartiles of |Δ| = 1 … 8 are 2.75, 4.5 and 6.25; the three smallest are ordered wrongly."""
    found = assess(comparisons(-1, -2, -3, 4, 5, 6, 7, 8, gaps=(8, 7, 6, 5, 4, 3, 2, 1)))["accuracy_by"]
    expected = {"1 to 2.75": (0, 2), "2.75 to 4.5": (0.5, 2), "4.5 to 6.25": (1, 2), "6.25 to 8": (1, 2)}
    groups = found["reward_difference"]
    assert {name: (group["accuracy"], group["n"]) for name, group in groups.items()} == expected
    groups = found["score_difference"]  # the annotator's, which falls here
    assert [(group["accuracy"], group["n"]) for group in groups.values()] == [(1, 2), (1, 2), (0.5, 2), (0, 2)]


def test_comparisons_without_a_score_have_no_quartile() -> None:
    gaps = (None, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.5)
    found = assess(comparisons(*range(1, 10), gaps=gaps))["accuracy_by"]["score_difference"]
    assert sum(group["n"] for group in found.values()) == 8
    few = assess(comparisons(*range(1, 9), gaps=gaps[:8]))["accuracy_by"]
    assert few["score_difference"] == {}


def test_the_temperature_gives_the_share_that_is_right() -> None:
    """Three of four with |Δ| = 2 are right: σ(2/T) = ¾ at T = 2/ln 3; that it is calibrated then has no error."""
    deltas = [2.0, 2.0, 2.0, -2.0] * 13
    assert len(deltas) >= FEWEST
    assert fit_temperature(np.array(deltas)) == pytest.approx(2 / math.log(3), abs=1e-4)
    found = assess(comparisons(*deltas))
    assert found["accuracy"] == 0.75
    assert found["temperature"] == pytest.approx(2 / math.log(3), abs=1e-4)
    assert found["expected_calibration_error"] == pytest.approx(1 / (1 + math.exp(-2)) - 0.75, abs=1e-6)
    assert found["expected_calibration_error_with_temperature"] == pytest.approx(0, abs=1e-4)
    assert assess(comparisons(*deltas[: FEWEST - 1]))["temperature"] is None


def test_sources_are_groups_and_a_tie_is_half_right() -> None:
    rows = [*comparisons(1, -1, source="a"), *comparisons(0, source="b"), *comparisons(3)]
    found = assess(rows)["accuracy_by"]["source"]
    assert {name: (group["accuracy"], group["n"]) for name, group in found.items()} == {"a": (0.5, 2), "b": (0.5, 1)}
