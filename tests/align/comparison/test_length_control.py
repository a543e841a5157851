"""Length-controlled win rates where it is known what a judge likes: merit, length, or both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit

from align.comparison.length_control import length_controlled
from align.evaluation.statistics import Estimate

Array = NDArray[np.float64]


def judged(
    seed: int, merit: Sequence[float], longer: Sequence[float], taste: float, n: int = 200
) -> dict[str, Estimate]:
    """Win rates of methods with these log-odds of merit and so many more tokens, by a judge with a taste for length."""
    rng = np.random.default_rng(seed)
    scores: dict[str, Array] = {}
    lengths: dict[str, Array] = {}
    for m, (theta, more) in enumerate(zip(merit, longer, strict=True)):
        length_SN = more + rng.normal(0, 15, (3, n))
        scores[f"m{m}"] = np.where(rng.random((3, n)) < expit(theta + taste * length_SN / 20), 1.0, -1.0)
        lengths[f"m{m}"] = length_SN
    return length_controlled(scores, lengths)


def low(estimate: Estimate) -> float:
    assert estimate.low is not None
    return estimate.low


def test_a_method_that_only_writes_longer_is_not_called_better() -> None:
    found = [judged(seed, [0, 0, 0], [30, 0, 0], taste=1.5)["m0"] for seed in range(8)]
    assert sum(low(estimate) > 0.5 for estimate in found) <= 1
    assert np.mean([estimate.mean for estimate in found]) == pytest.approx(0.5, abs=0.05)


def test_a_better_method_of_the_same_length_stays_better() -> None:
    found = [judged(seed, [0.8, 0, 0], [0, 30, 0], taste=1.5)["m0"] for seed in range(6)]
    assert sum(low(estimate) > 0.5 for estimate in found) >= 5
    assert np.mean([estimate.mean for estimate in found]) == pytest.approx(expit(0.8), abs=0.03)


def test_without_a_taste_for_length_it_is_the_plain_rate() -> None:
    found = judged(0, [0.5], [40], taste=0.0, n=2000)["m0"]
    assert found.mean == pytest.approx(expit(0.5), abs=0.05)
    assert (found.low or 1) <= expit(0.5) <= (found.high or 0)


def test_without_any_difference_in_length_it_is_the_rate_of_the_ridge() -> None:
    """θ solves Σ(y − σ(θ)) = θ: 30 of 40 wins."""
    scores = np.array([[1.0] * 30 + [-1.0] * 10])
    found = length_controlled({"m": scores}, {"m": np.zeros((1, 40))})["m"]
    theta = float(np.log(found.mean / (1 - found.mean)))
    assert 30 - 40 * found.mean == pytest.approx(theta, abs=1e-6)


def test_a_method_that_always_wins_has_a_finite_rate() -> None:
    found = length_controlled({"m": np.ones((2, 30))}, {"m": np.ones((2, 30))})["m"]
    assert 0.8 < found.mean < 1
