from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from align.errors import UserError
from align.evaluation.best_of_n import best_of_n, divergence, plot_best_of_n


def test_it_is_the_mean_over_all_subsets() -> None:
    rng = np.random.default_rng(0)
    scores, gold = rng.normal(size=(3, 6)), rng.normal(size=(3, 6))
    for point in best_of_n(scores, {"gold": gold}):
        chosen = [
            [max(subset, key=lambda k: scores[p, k]) for subset in itertools.combinations(range(6), point.n)]
            for p in range(3)
        ]
        assert point.score == pytest.approx(np.mean([scores[p, k] for p in range(3) for k in chosen[p]]))
        assert point.others["gold"] == pytest.approx(np.mean([gold[p, k] for p in range(3) for k in chosen[p]]))
        assert point.kl == pytest.approx(math.log(point.n) - (point.n - 1) / point.n)  # no two are equal
        assert point.kl_bound == pytest.approx(point.kl)


@pytest.mark.parametrize(("right", "n"), [(8, 16), (8, 2), (12, 4), (1, 8), (16, 8), (0, 4)])
def test_divergence_with_equal_scores(right: int, n: int) -> None:
    """Of 16 responses some are right: KL of two outcomes, ``1 − (1−p)ⁿ`` right; log 2 for p = ½ and n = 16."""
    p = right / 16
    best = 1 - (1 - p) ** n
    expected = sum(q * math.log(q / r) for q, r in ((best, p), (1 - best, 1 - p)) if q)
    scores = [1.0] * right + [0.0] * (16 - right)
    if right != 1:
        assert divergence(scores, n) == pytest.approx(expected, abs=1e-12)
    assert 0 <= divergence(scores, n) <= math.log(n) - (n - 1) / n + 1e-12
    if (right, n) == (8, 16):
        assert divergence(scores, n) == pytest.approx(math.log(2), abs=2e-4)


def test_divergence_by_simulation() -> None:
    """Scores 0 to 4 of a known distribution, 4,000 responses."""
    chances = np.array([0.1, 0.2, 0.4, 0.2, 0.1])
    below = np.concatenate([[0], chances.cumsum()]) ** 4
    best = np.diff(below)
    exact = float((best * np.log(best / chances)).sum())
    scores = np.random.default_rng(0).choice(5, size=4000, p=chances)
    assert divergence(scores, 4) == pytest.approx(exact, abs=0.02)
    assert exact < math.log(4) - 3 / 4 - 0.05


def test_sizes_and_the_ends_of_the_curve() -> None:
    scores = [[3.0, 1.0, 2.0, 0.0, 5.0, 4.0]]
    curve = best_of_n(scores)
    assert [point.n for point in curve] == [1, 2, 4, 6]
    assert (curve[0].score, curve[0].kl, curve[-1].score) == (2.5, 0.0, 5.0)


def test_gains_have_no_unit() -> None:
    """Mean 2.5, deviation √1.25: the best of four, 4, is 1.341641 deviations above; in hundredths of the unit too."""
    curve = best_of_n([[1.0, 2.0, 3.0, 4.0]], {"cents": [[100.0, 200.0, 300.0, 400.0]], "flat": [[7.0] * 4]})
    assert curve[-1].gain == curve[-1].other_gains["cents"] == pytest.approx(1.5 / math.sqrt(1.25))
    assert curve[0].gain == pytest.approx(0)
    assert curve[-1].other_gains["flat"] == 0


def test_gains_are_over_the_mean_of_all_responses() -> None:
    """Two prompts, scores 0, 2 and 4, 10: mean 4 and variance 14; the best of two are 2 and 10, in mean 6."""
    (one, two) = best_of_n([[0.0, 2.0], [4.0, 10.0]], {"gold": [[3.0, 1.0], [1.0, 7.0]]})
    assert (one.gain, two.gain) == (0, pytest.approx(2 / math.sqrt(14)))
    assert (two.others["gold"], two.other_gains["gold"]) == (4, pytest.approx(1 / math.sqrt(6)))  # mean 3, variance 6


def test_ties_are_shared() -> None:
    (_, both) = best_of_n([[1.0, 1.0]], {"gold": [[0.0, 1.0]]})
    assert both.others["gold"] == 0.5


def test_some_ties_among_others_by_enumeration() -> None:
    """Of 3, 1, 3, 0, 1 the best of n; among equal ones each is taken equally often."""
    scores, gold = [3.0, 1.0, 3.0, 0.0, 1.0], [1.0, 20.0, 300.0, 4000.0, 50000.0]
    for point in best_of_n([scores], {"gold": [gold]}):
        found: list[float] = []
        for subset in itertools.combinations(range(5), point.n):
            most = max(scores[k] for k in subset)
            # Which of the equal ones is drawn with the others is as likely as which is taken: all of that score count.
            found.append(float(np.mean([gold[k] for k in range(5) if scores[k] == most])))
        assert point.others["gold"] == pytest.approx(np.mean(found))


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        # Lowest two equal: outcome of ½ with (½)², ¼·log(¼/½); then [½, ¾] and [¾, 1] of ∫ 2u·log 2u du.
        ([0.0, 0.0, 1.0, 2.0], -0.25 * math.log(2) + (math.log(2) - 0.5) - (0.25 * math.log(0.5 * 2) - 0.125)),
        # All equal: the choice says nothing.
        ([1.0, 1.0, 1.0, 1.0], 0.0),
        # All different: the bound.
        ([0.0, 1.0, 2.0, 3.0], math.log(2) - 0.5),
    ],
)
def test_divergence_of_the_best_of_two_by_hand(scores: list[float], expected: float) -> None:
    """``∫ 2u·log 2u du = u²·log 2u − u²/2``."""
    assert divergence(scores, 2) == pytest.approx(expected, abs=1e-12)


def test_ragged_tables_are_refused() -> None:
    for table in ([[1.0], [1.0, 2.0]], [], [[]]):
        with pytest.raises(UserError, match="same number of responses"):
            best_of_n(table)


def test_the_picture(tmp_path: Path) -> None:
    plot_best_of_n(best_of_n([[1.0, 2.0, 3.0, 4.0]], {"gold": [[1.0, 2.0, 3.0, 2.0]]}), "proxy", tmp_path / "best.png")
    assert (tmp_path / "best.png").stat().st_size > 5000
