"""Lines of score over KL whose gap is known."""

from __future__ import annotations

import numpy as np
import pytest

from align.comparison.frontier import Frontier, Point, gap, sentences

N = 200
_COMMON = np.random.default_rng(0).normal(0, 0.3, N)


def line(*places: tuple[float, float], noise: float = 0.0, seed: int = 1) -> Frontier:
    """Runs with these mean KLs and scores; all share what is due to the prompt."""
    rng = np.random.default_rng(seed)
    centred = _COMMON - _COMMON.mean()
    return Frontier(
        "beta",
        [
            Point(1 / (1 + i), np.full(N, kl).tolist(), (score + centred + rng.normal(0, noise, N)).tolist())
            for i, (kl, score) in enumerate(places)
        ],
    )


def test_points_are_joined_in_order_of_kl() -> None:
    assert [point.place[0] for point in line((3, 1), (1, 0), (2, 1)).line] == [1, 2, 3]
    assert line((3, 1), (1, 0)).plain()["points"][0] == {"strength": 0.5, "kl": 1.0, "score": pytest.approx(0)}


def test_the_gap_is_the_mean_difference_where_both_lines_go() -> None:
    """From 1 to 3 the first line rises from 1 to 3 and the second is 1: the mean difference is 1."""
    found = gap(line((0, 0), (4, 4)), line((3, 1), (1, 1)))
    assert found is not None
    assert found.kl == (1, 3)
    assert found.mean == pytest.approx(1)
    assert found.p == pytest.approx(0, abs=1e-9)  # what is due to the prompts is common to both


def test_a_corner_between_the_ends_counts() -> None:
    """A triangle of height 1 over the whole range: a half."""
    found = gap(line((0, 0), (1, 1), (2, 0)), line((0, 0), (2, 0)))
    assert found is not None
    assert found.mean == pytest.approx(0.5, abs=1e-3)


def test_no_gap_where_no_kl_is_reached_by_both() -> None:
    assert gap(line((0, 0), (1, 1)), line((1, 1), (2, 2))) is None


def test_the_interval_is_that_of_the_prompts() -> None:
    """The mean of a line from one point to another is half of each: variance (¼ + ¼)·σ²/N for each of two lines."""
    found = gap(line((0, 0), (1, 0), noise=0.5, seed=2), line((0, 0), (1, 0), noise=0.5, seed=3))
    assert found is not None
    error = (found.high - found.low) / (2 * 1.96)
    assert error == pytest.approx((2 * 0.5 * 0.25 / N) ** 0.5, rel=0.12)
    assert found.low < 0 < found.high


def test_the_line_above_is_named_and_the_others_are_not_told_apart() -> None:
    lines = {
        "a": line((0, 0), (4, 4), noise=0.1, seed=4),
        "b": line((1, 0.2), (3, 0.2), noise=0.1, seed=5),
        "c": line((1, 0.2), (3, 0.2), noise=0.1, seed=6),
        "d": line((9, 0), (8, 0)),
    }
    said = sentences(lines, seed=7)
    assert said[0].startswith("At equal KL (1.00 to 3.00 nats, where both go) a lies above b, by 1.8")
    assert said[1].startswith("At equal KL (1.00 to 3.00 nats, where both go) a lies above c, by 1.8")
    assert said[2] == "At equal KL these lines cannot be told apart (runs of seed 7): b and c."
    assert said[3] == "No KL is reached by both of: a and d, b and d, c and d."
    backwards = sentences({"b": lines["b"], "a": lines["a"]}, seed=7)
    assert backwards[0] == said[0]
