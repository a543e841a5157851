"""Intervals against enumeration and simulation, tests and calibration by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy.special import expit
from scipy.stats import binom

from align.evaluation import statistics
from align.evaluation.statistics import (
    Estimate,
    calibration_error,
    calibration_error_if_calibrated,
    distinct_n,
    holm,
    ordered_right,
    rate,
    reliability,
    sign_test,
    win_rate,
)

RATES = (0.5, 0.7, 0.9, 0.97)


def wins(k: int, n: int) -> list[float]:
    return [1.0] * k + [0.0] * (n - k)


def bounds(estimate: Estimate) -> tuple[float, float]:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low, estimate.high


def exact_coverage(n: int) -> dict[float, float]:
    """Probability, summed over the binomial, that the interval holds the rate."""
    found = [bounds(rate(wins(k, n))) for k in range(n + 1)]
    return {p: sum(float(binom.pmf(k, n, p)) for k, (low, high) in enumerate(found) if low <= p <= high) for p in RATES}


class TestOneRun:
    @pytest.mark.parametrize("n", [30, 50, 64, 100, 200, 400])
    def test_coverage_by_enumeration(self, n: int) -> None:
        """At these n .929 to .975; .93 to .97 is not to be had for all: n = 35 and p = .97 allow .913 or .980."""
        for p, coverage in exact_coverage(n).items():
            assert 0.929 <= coverage <= 0.975, (n, p, coverage)

    @pytest.mark.slow
    def test_coverage_for_every_size(self) -> None:
        found = [coverage for n in range(30, 401) for coverage in exact_coverage(n).values()]
        assert min(found) >= 0.9185
        assert max(found) <= 0.981
        assert np.mean([0.93 <= coverage <= 0.97 for coverage in found]) > 0.96

    @pytest.mark.parametrize(
        ("k", "n", "low", "high"), [(16, 20, 0.584, 0.919), (0, 10, 0.0, 0.278), (29, 30, 0.833, 0.994)]
    )
    def test_wilson_as_published(self, k: int, n: int, low: float, high: float) -> None:
        """Of the closed form ``(p + z²/2n ± z·√(p(1−p)/n + z²/4n²))/(1 + z²/n)`` with z = 1.959964, by hand."""
        assert bounds(rate(wins(k, n))) == pytest.approx((low, high), abs=5e-4)

    @pytest.mark.parametrize("n", [1, 2, 5, 10, 30, 400])
    def test_it_stays_within_0_and_1_and_has_a_width(self, n: int) -> None:
        for ties in {0, n // 2, n}:
            for k in range(n - ties + 1):
                found = rate([1.0] * k + [0.5] * ties + [0.0] * (n - ties - k))
                low, high = bounds(found)
                assert 0 <= low <= found.mean <= high <= 1
                assert high - low > 0.5 / n
        assert bounds(rate([1.0] * n))[1] == 1
        assert bounds(rate([0.0] * n))[0] == 0

    @pytest.mark.parametrize(
        ("win", "tie"), [(0.3, 0.3), (0.5, 0.4), (0.1, 0.8), (0.9, 0.05), (0.02, 0.95), (0.25, 0.7)]
    )
    @pytest.mark.parametrize("n", [30, 100])
    def test_coverage_with_ties(self, win: float, tie: float, n: int) -> None:
        rng = np.random.default_rng(0)
        drawn = rng.choice([1.0, 0.5, 0.0], size=(1000, n), p=[win, tie, 1 - win - tie])
        found = [bounds(rate(row)) for row in drawn]
        truth = win + tie / 2
        assert np.mean([low <= truth <= high for low, high in found]) >= 0.93

    def test_ties_make_it_narrower(self) -> None:
        """Variance of half ties and a quarter of wins: ¼·¼ = 1/8, half of a coin's: the width is 1/√2 of it."""
        with_ties = bounds(rate([1.0] * 1000 + [0.5] * 2000 + [0.0] * 1000))
        without = bounds(rate([1.0] * 2000 + [0.0] * 2000))
        assert (with_ties[1] - with_ties[0]) / (without[1] - without[0]) == pytest.approx(math.sqrt(0.5), abs=2e-3)

    def test_comparisons_of_a_ranking_are_not_independent(self) -> None:
        """40 groups of 10 equal outcomes say as much as 40 outcomes."""
        outcomes = np.repeat(wins(28, 40), 10)
        grouped = bounds(rate(outcomes, np.repeat(np.arange(40), 10)))
        assert grouped == pytest.approx(bounds(rate(wins(28, 40))), abs=1e-9)
        alone = bounds(rate(outcomes))
        assert alone[1] - alone[0] < (grouped[1] - grouped[0]) / 2
        assert bounds(rate([1.0] * 30, np.arange(30) // 10))[0] == bounds(rate([1.0] * 3))[0]

    def test_groups_whose_outcomes_make_up_for_each_other_make_it_no_narrower(self) -> None:
        """One right and one wrong in each group: no group differs from another, yet the rate is one of 80."""
        assert bounds(rate([1.0, 0.0] * 40, np.arange(80) // 2)) == bounds(rate(wins(40, 80)))

    def test_groups_of_several_runs(self) -> None:
        """Three runs that each order 40 prompts as before, with ten pairs of each: as much as one pair of each."""
        rng = np.random.default_rng(0)
        runs = (rng.random((3, 40)) < 0.7).astype(float)
        grouped = bounds(rate(np.repeat(runs, 10, axis=1), np.repeat(np.arange(40), 10)))
        assert grouped == pytest.approx(bounds(rate(runs)), abs=1e-9)
        assert bounds(rate(runs, np.arange(40))) == pytest.approx(bounds(rate(runs)), abs=1e-9)


class TestSeveralRuns:
    @pytest.mark.parametrize("effect", [0.0, 0.2, 0.4, 0.8])
    @pytest.mark.parametrize(("mean", "of_prompts"), [(0.0, 1.5), (1.0, 0.0), (2.5, 1.0)])
    def test_coverage_of_three_runs(self, effect: float, mean: float, of_prompts: float) -> None:
        """Runs and prompts with normal effects on the logit scale; the truth by numerical integration."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(80)
        truth = float(weights @ expit(mean + math.hypot(effect, of_prompts) * nodes)) / math.sqrt(2 * math.pi)
        rng = np.random.default_rng(1)
        hits = 0
        for _ in range(500):
            logits = mean + effect * rng.normal(size=(3, 1)) + of_prompts * rng.normal(size=(1, 100))
            low, high = bounds(rate((rng.random((3, 100)) < expit(logits)).astype(float)))
            assert 0 <= low <= high <= 1
            hits += low <= truth <= high
        assert hits / 500 >= 0.93

    def test_two_runs_cannot_say(self) -> None:
        found = rate([wins(60, 100), wins(70, 100)])
        assert (found.mean, found.low, found.high, found.n, found.runs) == (0.65, None, None, 100, 2)
        assert found.percent("prompts") == (
            "65.0% (2 runs, 100 prompts; 2 runs are too few for an interval over runs: train with 3 seeds or more)"
        )

    def test_runs_without_an_effect_cost_little(self) -> None:
        """The same prompts decide: three equal runs say no more than one of them."""
        single = bounds(rate(wins(60, 100)))
        low, high = bounds(rate([wins(60, 100)] * 3))
        assert high - low == pytest.approx(single[1] - single[0], rel=0.02)

    def test_runs_that_make_up_for_each_other_make_it_no_narrower(self) -> None:
        """Each prompt is won by one run of three, and each run wins as many: neither differs from another."""
        won = np.arange(60) % 3 == np.arange(3)[:, None]
        assert bounds(rate(won.astype(float))) == pytest.approx(bounds(rate(wins(60, 180))))

    def test_three_runs_on_four_prompts_by_hand(self) -> None:
        """Runs won ¾, ½, ½: ``V_runs`` = .020833/3. Of prompts 1, ⅔, 0, ⅔: ``MS`` = 3·.175926, ``MS_residual`` =
        1.166667/6, so ``V_prompts`` = .333333/12. With t = 4.302653 at two degrees of freedom h² = .235268, and
        c = h²/(m(1 − m)) = .967959 for m = 7/12.
        """
        found = rate([[1, 1, 0, 1], [1, 0, 0, 1], [1, 1, 0, 0]])
        assert (found.mean, found.n, found.runs) == (pytest.approx(7 / 12), 4, 3)
        assert bounds(found) == pytest.approx((0.194165, 0.890525), abs=1e-5)

    def test_one_prompt_tells_nothing_of_prompts(self) -> None:
        """Runs 1, 0, 1: m = ⅔, ``V_runs`` = ⅓/3 and no ``V_prompts``: h² = 18.512823/9 = 2.056980, c = 9.256411.

        ``(m + c/2 ∓ √(h² + c²/4))/(1 + c)`` = (5.294872 ∓ 4.845335)/10.256411.
        """
        assert bounds(rate([[1], [0], [1]])) == pytest.approx((0.043830, 0.988670), abs=1e-5)

    def test_all_runs_won(self) -> None:
        assert bounds(rate(np.ones((3, 50)))) == bounds(rate(np.ones(50)))


def test_a_tie_is_half_right() -> None:
    assert ordered_right(np.array([0.3, 0.0, -2.0, -0.0])).tolist() == [1.0, 0.5, 0.0, 0.5]
    right = ordered_right(torch.tensor([0.3, 0.0, -2.0], dtype=torch.float64))
    assert right.tolist() == [1.0, 0.5, 0.0]


def test_win_rate_counts_ties_half() -> None:
    assert win_rate([1.0] * 30 + [1e-12] * 20 + [-1.0] * 50).mean == pytest.approx(0.4)


def test_no_interval_of_a_score_leaves_its_range() -> None:
    """Of four: Wilson's for 1 right, 0.0456 to 0.6994, and for none, 0 to z²/(4 + z²)."""
    assert bounds(statistics.score([1.0, 0.0, 0.0, 0.0])) == pytest.approx((0.0456, 0.6994), abs=1e-4)
    assert bounds(statistics.score([0.0] * 4)) == pytest.approx((0.0, 0.4899), abs=1e-4)
    graded = statistics.score([0.9, 1.0, 0.4, 0.95])  # t = 3.182446: 0.8125 ± 0.4424
    assert bounds(graded) == pytest.approx((0.3701, 1.0), abs=1e-4)
    assert statistics.score([0.9, 1.1, 0.4, 0.95]).high == pytest.approx(0.8375 + 3.182446 * 0.303795 / 2, abs=1e-4)


def test_the_interval_of_a_mean_by_hand() -> None:
    """Of 0, 1, 2: standard error 1/√3, t with two degrees of freedom 4.302653."""
    assert bounds(statistics.mean([0.0, 1.0, 2.0])) == pytest.approx(
        (1 - 4.302653 / 3**0.5, 1 + 4.302653 / 3**0.5), abs=1e-5
    )
    assert statistics.mean([0.0, 1.0, 2.0], least=0).low == 0
    assert statistics.mean([3.0]) == Estimate(3.0, None, None, 1)


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        ([1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0], 2 / 32),  # 5 of 5 discordant
        ([1, 1, 1, 0, 1], [0, 0, 0, 1, 1], 10 / 16),  # 3 of 4: 2·(4 + 1)/16
        ([1, 0], [1, 0], 1.0),
    ],
)
def test_the_exact_sign_test(first: Sequence[float], second: Sequence[float], p: float) -> None:
    assert sign_test(first, second) == pytest.approx(p)


def test_holms_correction() -> None:
    """Smallest first times 4, 3, 2, 1, never below the one before: the example .01, .04, .03, .005."""
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    )
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(0.6, 0.564, 0.636, 400), "60.0% (95 % interval 56.4% to 63.6%, 400 prompts)"),
        (Estimate(0.6, 0.5, 0.7, 1200, 3), "60.0% (95 % interval 50.0% to 70.0%, 3 runs, 1,200 prompts)"),
        (Estimate(1.0, None, None, 1), "100.0% (1 prompts; too few observations for an interval)"),
        (
            Estimate(0.5, None, None, 9, 2),
            "50.0% (2 runs, 9 prompts; 2 runs are too few for an interval over runs: train with 3 seeds or more)",
        ),
        (Estimate(0.5, None, None, 9, 3), "50.0% (3 runs, 9 prompts; too few observations for an interval)"),
    ],
)
def test_an_estimate_in_words(estimate: Estimate, text: str) -> None:
    assert estimate.percent("prompts") == text


@pytest.mark.parametrize(("difference", "won"), [(1e-8, 1.0), (1e-10, 0.5), (-1e-10, 0.5), (-1e-8, 0.0)])
def test_a_difference_below_a_billionth_is_a_tie(difference: float, won: float) -> None:
    assert win_rate([difference]).mean == won
    assert sign_test([difference] * 5, [0.0] * 5) == (1.0 if won == 0.5 else 2 / 32)


def test_no_outcome_has_no_rate() -> None:
    with pytest.raises(ValueError, match="a rate of no outcomes"):
        rate([])


class TestCalibration:
    def test_bins_by_hand(self) -> None:
        """Ten bins of .05 from ½ on: the last one holds 1, and empty ones are left out."""
        confidence = np.array([0.5, 0.549, 0.551, 0.74, 0.96, 1.0])
        right = np.array([1.0, 0.0, 1.0, 0.0, 1.0, 0.0])
        assert reliability(confidence, right) == [
            {"confidence": pytest.approx(0.5245), "accuracy": 0.5, "n": 2},
            {"confidence": pytest.approx(0.551), "accuracy": 1.0, "n": 1},
            {"confidence": pytest.approx(0.74), "accuracy": 0.0, "n": 1},
            {"confidence": pytest.approx(0.98), "accuracy": 0.5, "n": 2},
        ]
        gaps = 2 * abs(0.5 - 0.5245) + abs(1 - 0.551) + 0.74 + 2 * abs(0.5 - 0.98)
        assert calibration_error(confidence, right) == pytest.approx(gaps / 6)
        assert [row["n"] for row in reliability(confidence, right, bins=2)] == [4, 2]

    def test_expected_error_of_many_in_one_bin(self) -> None:
        """Of n = 2,500 at .8 the mean distance of a share from its chance is ``√(2·.8·.2/(π·n))``."""
        found = calibration_error_if_calibrated(np.full(2500, 0.8))
        assert found == pytest.approx(math.sqrt(2 * 0.8 * 0.2 / (math.pi * 2500)), rel=0.08)
        assert calibration_error_if_calibrated(np.full(2500, 0.8)) == found

    def test_error_by_hand(self) -> None:
        confidence, right = np.array([0.52, 0.54, 0.98, 0.96]), np.array([1.0, 0.0, 1.0, 1.0])
        assert [(row["n"], row["accuracy"]) for row in reliability(confidence, right)] == [(2, 0.5), (2, 1.0)]
        assert calibration_error(confidence, right) == pytest.approx(0.5 * 0.03 + 0.5 * 0.03)

    def test_expected_error_of_few_by_enumeration(self) -> None:
        confidence = np.array([0.61, 0.62, 0.83, 0.91, 0.93])
        expected = 0.0
        for outcome in itertools.product([0.0, 1.0], repeat=5):
            right = np.array(outcome)
            chance = float(np.prod(np.where(right == 1, confidence, 1 - confidence)))
            expected += chance * calibration_error(confidence, right)
        assert calibration_error_if_calibrated(confidence) == pytest.approx(expected, rel=0.06)

    def test_it_falls_with_the_number(self) -> None:
        """About .14 for 50 pairs, and as 1/√n."""
        found = [calibration_error_if_calibrated(np.linspace(0.5, 0.999, n)) for n in (50, 5000)]
        assert found[0] == pytest.approx(0.14, abs=0.02)
        assert found[1] == pytest.approx(found[0] / 10, rel=0.15)


class TestDistinct:
    def test_it_is_the_mean_over_all_subsets(self) -> None:
        texts = ["a b a b", "a b c", "c d", "e", "a b"]
        grams = [[tuple(text.split()[i : i + 2]) for i in range(len(text.split()) - 1)] for text in texts]
        subsets = list(itertools.combinations(range(5), 3))
        distinct = np.mean([len({gram for i in subset for gram in grams[i]}) for subset in subsets])
        total = np.mean([sum(len(grams[i]) for i in subset) for subset in subsets])
        assert distinct_n(texts, 2, of=3) == pytest.approx(distinct / total)
        assert distinct_n(texts, 2, of=5) == pytest.approx(4 / 7)

    def test_it_does_not_depend_on_the_number_of_responses(self) -> None:
        """Of words drawn in the same way; the plain share falls from .9 to .6."""
        rng = np.random.default_rng(0)
        texts = [" ".join(map(str, rng.integers(30, size=12))) for _ in range(400)]
        few, many = (distinct_n(texts[:n], 2) for n in (32, 400))
        assert few == pytest.approx(many, abs=0.02)

    def test_too_few_responses(self) -> None:
        assert distinct_n(["a b"] * 15, 2) is None
        assert distinct_n(["a"] * 16, 2) == 0
