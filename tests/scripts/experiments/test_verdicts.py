"""Verdicts follow the rule and the interval; planted truths are found, and ties are not called differences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from experiments import verdicts
from experiments.fits import fit
from experiments.plan import Arm, Part
from experiments.verdicts import Verdict, judge, of_all
from scipy.stats import ttest_ind, ttest_rel

from align.errors import UserError

ARMS = {"a": Arm(), "b": Arm(), "c": Arm()}
RNG = np.random.default_rng


def measured(**means: list[float]) -> dict[str, dict[int, Any]]:
    """Arms with a mean for each seed; the prompts of all share a deviation that sums to nothing."""
    prompts = np.array([-0.1, 0.1, -0.05, 0.05])
    return {
        arm: {seed: {"seen": {"score": (mean + prompts).tolist()}} for seed, mean in enumerate(of)}
        for arm, of in means.items()
    }


def part(**settings: Any) -> Part:
    return Part(**({"says": "a over b", "contrast": {"a": 1.0, "b": -1.0}, "of": "seen"} | settings))


def test_the_interval_is_welchs_over_runs_where_prompts_do_not_differ() -> None:
    a, b = [0.5, 0.6, 0.7], [0.3, 0.2, 0.45]
    found = judge(part(), measured(a=a, b=b), ARMS)
    oracle = ttest_ind(a, b, equal_var=False).confidence_interval()
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high))
    assert (found.runs, found.prompts) == (3, 4)


def test_one_run_each_is_the_paired_t_test() -> None:
    a, b = RNG(0).random(20), RNG(1).random(20)
    content = {name: {0: {"seen": {"score": table.tolist()}}} for name, table in (("a", a), ("b", b))}
    found = judge(part(), content, ARMS)
    oracle = ttest_rel(a, b).confidence_interval()
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high))


@pytest.mark.parametrize(
    ("settings", "a", "b", "outcome"),
    [
        ({}, [0.7, 0.71, 0.72], [0.5, 0.51, 0.52], "reproduced"),
        ({}, [0.5, 0.51, 0.52], [0.7, 0.71, 0.72], "not reproduced"),
        ({}, [0.5, 0.7, 0.9], [0.5, 0.6, 0.8], "cannot be told here"),
        ({"margin": 0.1}, [0.501, 0.5, 0.499], [0.5, 0.501, 0.499], "not reproduced"),  # too small to be worth having
        ({"rule": "within", "margin": 0.05}, [0.501, 0.5, 0.499], [0.5, 0.501, 0.499], "reproduced"),
        ({"rule": "within", "margin": 0.05}, [0.7, 0.71, 0.72], [0.5, 0.51, 0.52], "not reproduced"),
        ({"rule": "within", "margin": 0.05}, [0.5, 0.7, 0.9], [0.5, 0.6, 0.8], "cannot be told here"),
        ({"rule": "not_below", "margin": 0.05}, [0.7, 0.71, 0.72], [0.5, 0.51, 0.52], "reproduced"),
        ({"rule": "not_below", "margin": 0.05}, [0.49, 0.5, 0.51], [0.5, 0.51, 0.52], "reproduced"),
        ({"rule": "not_below", "margin": 0.05}, [0.3, 0.31, 0.32], [0.5, 0.51, 0.52], "not reproduced"),
    ],
)
def test_the_rule_decides(settings: dict[str, Any], a: list[float], b: list[float], outcome: str) -> None:
    assert judge(part(**settings), measured(a=a, b=b), ARMS).outcome == outcome


@pytest.mark.parametrize(
    ("settings", "value", "half", "runs"),
    [
        ({}, 0.02, 0.03, 7),  # 3 · 1.5² = 6.75
        ({}, -0.02, 0.06, 27),
        ({"rule": "within", "margin": 0.05}, 0.01, 0.08, 12),
        ({"rule": "within", "margin": 0.05}, -0.09, 0.08, 12),
        ({"rule": "not_below", "margin": 0.05}, -0.03, 0.0201, 4),
        ({"rule": "not_below", "margin": 0.05}, -0.06, 0.03, 27),
    ],
)
def test_the_runs_that_could_tell(settings: dict[str, Any], value: float, half: float, runs: int) -> None:
    """The interval of three runs reaches over the bound; that of so many, narrower by their root, does not."""
    assert verdicts._needed(part(**settings), value, half, 3) == runs  # pyright: ignore[reportPrivateUsage]


def test_a_contrast_of_four_arms_is_the_difference_of_the_gains() -> None:
    content = measured(a=[0.6, 0.62, 0.64], b=[0.4, 0.41, 0.42], c=[0.9, 0.91, 0.92], d=[0.88, 0.9, 0.92])
    asked = part(contrast={"a": 1.0, "b": -1.0, "c": -1.0, "d": 1.0})
    found = judge(asked, content, {name: Arm() for name in "abcd"})
    assert found.value == pytest.approx(0.62 - 0.41 - 0.91 + 0.90)
    variance = sum(np.var(of, ddof=1) / 3 for of in ([0.6, 0.62, 0.64], [0.4, 0.41, 0.42], [0.9, 0.91, 0.92])) + (
        np.var([0.88, 0.9, 0.92], ddof=1) / 3
    )
    assert (found.high - found.low) / 2 > 1.96 * variance**0.5


def test_of_several_answers_the_one_with_the_highest_proxy_counts() -> None:
    content = {
        "a": {0: {"seen": {"score": [[0.1, 0.9], [0.2, 0.4]], "proxy": [[3.0, 1.0], [0.0, 5.0]]}}},
        "b": {0: {"seen": {"score": [0.0, 0.0], "proxy": [0.0, 0.0]}}},
    }
    assert judge(part(), content, ARMS).value == pytest.approx((0.1 + 0.4) / 2)
    assert judge(part(of="seen.proxy"), content, ARMS).value == pytest.approx((3 + 5) / 2)


def test_a_smaller_spread_over_runs_is_found_and_an_equal_one_is_not_called_smaller() -> None:
    rng = RNG(3)
    wrong, right = 0, 0
    for _ in range(40):
        wide, narrow = rng.normal(0.5, 0.1, 10).tolist(), rng.normal(0.5, 0.01, 10).tolist()
        right += judge(part(statistic="spread"), measured(a=wide, b=narrow), ARMS).outcome == "reproduced"
        equal = rng.normal(0.5, 0.1, 10).tolist()
        wrong += judge(part(statistic="spread"), measured(a=wide, b=equal), ARMS).outcome == "reproduced"
    assert right >= 38
    assert wrong <= 4


def _lines(shift: float, noise: float = 0.0) -> tuple[dict[str, Any], dict[str, Arm]]:
    """Two lines of three arms with reward √KL/4 and the same minus `shift`."""
    rng = RNG(5)
    content: dict[str, Any] = {}
    arms: dict[str, Arm] = {}
    for line, lower in (("first", 0.0), ("second", shift)):
        for kl in (1.0, 2.0, 4.0):
            arms[f"{line}{kl}"] = Arm(line=line)
            content[f"{line}{kl}"] = {
                seed: {
                    "seen": {
                        "score": (kl**0.5 / 4 - lower + rng.normal(0, noise, 50)).tolist(),
                        "kl": [kl] * 50,
                    }
                }
                for seed in range(3)
            }
    return content, arms


def test_frontiers_are_compared_over_the_kl_that_both_reach() -> None:
    asked = part(statistic="frontier", contrast={"first": 1.0, "second": -1.0})
    found = judge(asked, *_lines(0.1, 0.02))
    assert found.value == pytest.approx(0.1, abs=0.01)
    assert found.outcome == "reproduced"
    assert judge(asked, *_lines(0.0, 0.02)).outcome == "cannot be told here"


def test_a_frontier_whose_kl_is_that_of_a_few_prompts_is_compared_too() -> None:
    asked = part(statistic="frontier", contrast={"first": 1.0, "second": -1.0})
    content, arms = _lines(0.1, 0.02)
    for name in arms:
        if name.startswith("second"):  # of 50 prompts one has all the KL: a third of the resamples do without it
            for found in content[name].values():
                found["seen"]["kl"] = [sum(found["seen"]["kl"]), *[0.0] * 49]
    found = judge(asked, content, arms)
    assert found.value == pytest.approx(0.1, abs=0.01)
    assert math.isfinite(found.low)


def test_frontiers_without_a_common_kl_are_refused_in_a_sentence() -> None:
    asked = part(statistic="frontier", contrast={"first": 1.0, "second": -1.0})
    content, arms = _lines(0.1)
    for name in arms:
        if name.startswith("second"):
            for found in content[name].values():
                found["seen"]["kl"] = [10 * kl for kl in found["seen"]["kl"]]
    with pytest.raises(UserError, match=r"one goes from 1\.00 to 4\.00 nats, the other from 10\.00 to 40\.00"):
        judge(asked, content, arms)


def test_a_claim_is_as_good_as_its_parts() -> None:
    def verdict(outcome: Any) -> Verdict:
        return Verdict("x", 0, 0, 0, 3, 4, "above 0", outcome, None)

    yes, no, unknown = map(verdict, ("reproduced", "not reproduced", "cannot be told here"))
    assert of_all([yes, yes]) == "reproduced"
    assert of_all([yes, no, unknown]) == "not reproduced"
    assert of_all([yes, unknown]) == "cannot be told here"


def test_the_fits_find_planted_constants() -> None:
    kl = np.array([0.5, 1, 2, 4, 9, 16.0])
    d = np.sqrt(kl)
    best = fit("best_of_n", kl.tolist(), (d * (0.3 - 0.05 * d)).tolist())
    assert (best.alpha, best.beta, best.peak, best.residual) == pytest.approx((0.3, 0.05, 3.0, 0), abs=1e-9)
    other = fit("reinforcement", kl.tolist(), (d * (0.2 - 0.1 * np.log(d))).tolist())
    assert (other.alpha, other.beta, other.peak) == pytest.approx((0.2, 0.1, np.e), abs=1e-9)
