"""Differences beside scipy's t-tests, coverage by simulation, and the planted truth: who is named the winner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from align.comparison.differences import difference, needed, rank

Array = NDArray[np.float64]


def planted(
    rng: np.random.Generator,
    means: Sequence[float],
    *,
    runs: int,
    prompts: int,
    run_sd: Sequence[float] | float,
    binary: bool = False,
) -> dict[str, Array]:
    """Scores of methods with known means: effects of prompts, of methods on prompts, of runs, and residuals."""
    of_runs = np.broadcast_to(run_sd, len(means))
    common_N = rng.normal(0, 0.3, prompts)
    out: dict[str, Array] = {}
    for m, mean in enumerate(means):
        scores_SN = mean + common_N + rng.normal(0, 0.2, prompts) + rng.normal(0, 0.4, (runs, prompts))
        scores_SN += rng.normal(0, of_runs[m], (runs, 1))
        if binary:
            scores_SN = (rng.random((runs, prompts)) < 1 / (1 + np.exp(-2 * scores_SN))).astype(np.float64)
        out[f"m{m}"] = scores_SN
    return out


class TestDifference:
    def test_of_one_run_each_is_the_paired_t_test(self) -> None:
        rng = np.random.default_rng(0)
        a, b = rng.normal(0.2, 1, 50), rng.normal(0, 1, 50)
        expected: Any = stats.ttest_rel(a, b)
        found = difference(a, b)
        low, high = expected.confidence_interval()
        assert found.mean == pytest.approx(a.mean() - b.mean())
        assert found.p == pytest.approx(expected.pvalue)
        assert (found.low, found.high) == pytest.approx((low, high))
        assert found.degrees == 49

    def test_of_runs_alone_is_welchs_t_test_of_their_means(self) -> None:
        """Every prompt alike: all that varies is the run."""
        a_S, b_S = np.array([0.1, 0.5, 0.4]), np.array([0.9, 0.8, 1.3, 1.1])
        expected: Any = stats.ttest_ind(a_S, b_S, equal_var=False)
        found = difference(np.tile(a_S[:, None], 20), np.tile(b_S[:, None], 20))
        assert found.p == pytest.approx(expected.pvalue)
        assert found.of_prompts == 0
        low, high = expected.confidence_interval()
        assert (found.low, found.high) == pytest.approx((low, high))

    def test_sides_change_the_sign_alone(self) -> None:
        rng = np.random.default_rng(1)
        tables = planted(rng, [0.0, 0.1], runs=3, prompts=40, run_sd=0.05)
        one, other = difference(tables["m0"], tables["m1"]), difference(tables["m1"], tables["m0"])
        assert one.mean == pytest.approx(-other.mean)
        assert one.p == pytest.approx(other.p)
        assert one.p_larger == pytest.approx(1 - other.p_larger)

    def test_equal_scores_are_no_difference(self) -> None:
        same = np.ones((3, 10))
        assert difference(same, same).p == 1.0
        assert difference(same, same - 1).p == 0.0

    def test_one_prompt_of_one_run_shows_nothing(self) -> None:
        assert difference([1.0], [0.0]).p == 1.0

    def test_other_prompts_are_refused(self) -> None:
        with pytest.raises(ValueError, match="10 and of 9"):
            difference(np.ones((2, 10)), np.ones((2, 9)))

    @pytest.mark.parametrize(
        ("runs", "prompts", "run_sd"),
        [(1, 60, 0.0), (3, 60, 0.0), (3, 60, 0.2), (3, 60, (0.6, 0.06)), (5, 60, (0.6, 0.06))],
    )
    def test_interval_covers_the_truth(self, runs: int, prompts: int, run_sd: float) -> None:
        """Of 400 simulated comparisons .95 is expected; ±.022 is twice the standard error."""
        rng = np.random.default_rng(2)
        covered = 0
        for _ in range(400):
            tables = planted(rng, [0.3, 0.0], runs=runs, prompts=prompts, run_sd=run_sd)
            found = difference(tables["m0"], tables["m1"])
            covered += found.low <= 0.3 <= found.high
        assert 0.92 <= covered / 400 <= 0.985


_WORLDS = [
    pytest.param({"runs": 1, "prompts": 100, "run_sd": 0.0}, id="one run"),
    pytest.param({"runs": 3, "prompts": 100, "run_sd": 0.05}, id="three runs"),
    pytest.param({"runs": 3, "prompts": 100, "run_sd": 0.05, "binary": True}, id="right or wrong"),
    pytest.param({"runs": 3, "prompts": 100, "run_sd": (0.4, 0.02, 0.02, 0.02)}, id="one unstable method"),
    pytest.param({"runs": 5, "prompts": 100, "run_sd": 0.1}, id="five runs"),
]


class TestRank:
    @pytest.mark.parametrize("world", _WORLDS)
    def test_a_wrong_winner_is_named_in_at_most_one_of_twenty(self, world: dict[str, object]) -> None:
        """1,000 planted truths over these worlds: the best one is ahead by .01, where errors are the most likely."""
        rng = np.random.default_rng(3)
        named = [rank(planted(rng, [0.0, 0.01, 0.0, -0.3], **world)).winner for _ in range(200)]  # pyright: ignore[reportArgumentType]
        assert sum(name not in (None, "m1") for name in named) <= 10

    @pytest.mark.parametrize("world", _WORLDS)
    @pytest.mark.parametrize("methods", [2, 4])
    def test_equal_methods_have_no_winner_in_nine_of_ten(self, world: dict[str, object], methods: int) -> None:
        rng = np.random.default_rng(4)
        if isinstance(spread := world["run_sd"], tuple):
            world = {**world, "run_sd": spread[:methods]}
        named = [rank(planted(rng, [0.0] * methods, **world)).winner for _ in range(200)]  # pyright: ignore[reportArgumentType]
        assert sum(name is None for name in named) >= 180

    def test_a_large_difference_is_found(self) -> None:
        rng = np.random.default_rng(5)
        named = [rank(planted(rng, [0.0, 0.3, 0.0], runs=3, prompts=200, run_sd=0.03)).winner for _ in range(100)]
        assert named.count("m1") >= 90

    def test_those_not_told_apart_are_listed_after_the_best(self) -> None:
        rng = np.random.default_rng(6)
        noise = rng.normal(0, 0.1, (3, 100))
        found = rank({"low": noise - 1, "best": noise + 0.001, "near": noise[::-1]})
        assert found.order == ["best", "near", "low"]
        assert found.tied == ["best", "near"]
        assert found.winner is None


class TestNeeded:
    def test_prompts_by_the_formula_of_the_paired_test(self) -> None:
        """The least n of n ≥ (t.975 + t.8)²·σ²/d², with the n − 1 degrees of freedom of the test to come."""
        rng = np.random.default_rng(7)
        d = rng.normal(0.05, 0.5, 80)
        found = difference(d, np.zeros(80))
        n = needed(found).prompts
        assert n is not None

        def asked(size: int) -> float:
            quantiles = stats.t.ppf(0.975, size - 1) + stats.t.ppf(0.8, size - 1)
            return float((quantiles * d.std(ddof=1) / d.mean()) ** 2)

        assert n >= asked(n)
        assert n - 1 < asked(n - 1)
        assert needed(found).runs is None

    @pytest.mark.parametrize("runs", [2, 3, 5])
    def test_runs_by_the_formula_of_welch(self, runs: int) -> None:
        """Two arms of equal variance: the least n ≥ (t.975 + t.8)²·2σ²/d² with 2n − 2 degrees, from however many."""
        means = np.linspace(-1, 1, runs)
        means *= 0.5 / means.std(ddof=1)
        found = difference(np.tile(means[:, None], 30), np.tile(means[:, None] - 0.4, 30))
        n = needed(found).runs

        def asked(size: int) -> float:
            quantiles = stats.t.ppf(0.975, 2 * size - 2) + stats.t.ppf(0.8, 2 * size - 2)
            return float(quantiles**2 * 2 * 0.5**2 / 0.4**2)

        assert n is not None
        assert n >= asked(n)
        assert n - 1 < asked(n - 1)

    def test_no_number_of_prompts_is_enough_where_runs_differ_more(self) -> None:
        a_SN = np.tile(np.array([[0.0], [1.0], [2.0]]), 30)
        found = difference(a_SN, np.tile(np.array([[0.9], [1.0], [1.0]]), 30))
        size = needed(found)
        assert size.prompts is None
        assert size.runs is not None
        assert size.runs > 3

    def test_nothing_shows_a_difference_of_nothing(self) -> None:
        size = needed(difference(np.ones(5), np.ones(5)))
        assert (size.prompts, size.runs) == (None, None)
