"""The bounds of a healthy run, on both sides of each, and the roll-outs that are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from align.evaluation.measurement import Measurement, Sample
from methods import GRPO, PPO
from methods.ppo.health import warnings

HEALTHY = {
    "objective/scores": [0.2] * 5 + [0.6] * 5,
    "objective/kl": [0.0] * 5 + [4.0] * 5,
    "tokens/lengths": [20.0] * 10,
    "policy/entropy": [1.0] * 10,
    "identical": [0.1] * 10,
    "val/num_eos_tokens": [0.9] * 10,
    "val/explained_variance": [0.5] * 10,
}


def course(**changed: Sequence[float]) -> list[dict[str, float]]:
    """Ten roll-outs, or as many as ``changed`` has."""
    lines = {**HEALTHY, **{name.replace("__", "/"): list(values) for name, values in changed.items()}}
    number = min(map(len, lines.values()))
    return [{name: values[i] for name, values in lines.items()} for i in range(number)]


def steady(first: float, last: float) -> list[float]:
    """Five of one value, five of the other: of which the averages are."""
    return [first] * 5 + [last] * 5


def measured(*scores: float) -> list[Measurement]:
    return [Measurement([Sample("p", "r", 2, 0.0, {"first": score, "second": -score})]) for score in scores]


@pytest.mark.parametrize(
    ("name", "metric", "healthy", "not_healthy"),
    [
        ("kl", "objective__kl", steady(0.0, 20.0), steady(0.0, 20.01)),
        ("length", "tokens__lengths", steady(20.0, 30.0), steady(20.0, 30.1)),
        ("length", "tokens__lengths", steady(30.0, 20.1), steady(30.0, 19.9)),
        ("entropy", "policy__entropy", steady(1.0, 0.25), steady(1.0, 0.249)),
        ("identical", "rollout__identical", steady(0.1, 0.5), steady(0.1, 0.51)),
        ("identical", "rollout__identical", steady(0.4, 0.6), steady(0.4, 0.61)),  # of a model that repeats itself
        ("cut off", "val__num_eos_tokens", steady(0.9, 0.5), steady(0.9, 0.49)),
        ("value", "val__explained_variance", steady(-1.0, 0.0), steady(1.0, -0.01)),
    ],
)
def test_bounds(name: str, metric: str, healthy: list[float], not_healthy: list[float]) -> None:
    assert warnings(course(**{metric: healthy}), [], trains_value=True) == {}
    assert list(warnings(course(**{metric: not_healthy}), [], trains_value=True)) == [name]


@pytest.mark.parametrize(
    ("metric", "values"),
    [
        ("objective__kl", [*[0.0] * 9, 99.0]),
        ("tokens__lengths", [*[20.0] * 9, 60.0]),
        ("tokens__lengths", [60.0, *[20.0] * 9]),
        ("policy__entropy", [*[1.0] * 9, 0.0]),
        ("rollout__identical", [*[0.1] * 9, 1.0]),
        ("val__num_eos_tokens", [*[0.9] * 9, 0.0]),
        ("val__explained_variance", [*[0.5] * 9, -1.9]),
    ],
)
def test_one_roll_out_is_no_course(metric: str, values: list[float]) -> None:
    """The mean of five counts, of the first as of the last."""
    assert warnings(course(**{metric: values}), [], trains_value=True) == {}


def test_what_is_said_has_the_means_of_the_first_and_the_last_five() -> None:
    lengths = [10.0, 20.0, 30.0, 20.0, 20.0, 500.0, 60.0, 80.0, 70.0, 70.0, 70.0]
    found = warnings(
        course(**{name: [*v, v[-1]] for name, v in HEALTHY.items()} | {"tokens/lengths": lengths}),
        [],
        trains_value=True,
    )
    assert found["length"].startswith("responses went from 20 to 70 tokens")


def test_the_value_has_ten_roll_outs_of_time_and_only_where_there_is_one() -> None:
    bad = {"val__explained_variance": [-1.0] * 10}
    assert list(warnings(course(**bad), [], trains_value=True)) == ["value"]
    assert warnings(course(**bad), [], trains_value=False) == {}
    assert warnings(course(val__explained_variance=[-1.0] * 9), [], trains_value=True) == {}
    assert list(PPO().warnings(course(**bad), [])) == ["value"]
    assert GRPO().warnings(course(**bad), []) == {}


@pytest.mark.parametrize(
    ("spreads", "said"),
    [
        ([0.5] * 5 + [0.0] * 5, True),
        ([0.0] * 5, True),
        ([0.0] * 4, False),  # too early to say
        ([0.5] * 6 + [0.0] * 4, False),
        ([0.0] * 9 + [1e-9], False),
    ],
)
def test_a_reward_that_is_the_same_for_every_response(spreads: list[float], said: bool) -> None:
    found = warnings(course(**{"scores/mine/std": spreads, "scores/mine": [1.0] * 10}), [], trains_value=False)
    assert ("constant reward" in found) == said


def test_a_mixture_of_scores_is_constant_only_if_each_is() -> None:
    rollouts = course(**{"scores/all/std": [0.0] * 10, "scores/all/part/std": [0.1] * 10})
    assert "constant reward" not in warnings(rollouts, [], trains_value=True)


class TestOverOptimised:
    def found(self, scores: Sequence[float], rollouts: Any = None) -> bool:
        return "over-optimised" in warnings(rollouts or course(), measured(*scores), trains_value=True)

    @pytest.mark.parametrize(
        ("scores", "said"),
        [
            ((0.4, 1.0, 0.94), True),
            ((0.4, 1.0, 0.96), False),  # a fall of at most a twentieth
            ((0.4, 1.0, 0.5, 0.97), False),  # it has recovered
            ((1.0, 0.4, 0.5, 0.6), True),  # the peak was the start
            ((1.0, 0.5), False),  # too few to say
        ],
    )
    def test_a_fall_from_the_peak(self, scores: tuple[float, ...], said: bool) -> None:
        assert self.found(scores) is said

    def test_the_training_reward_must_rise(self) -> None:
        for last, said in ((0.2, False), (0.1, False), (0.21, True)):
            assert self.found((0.4, 1.0, 0.5), course(objective__scores=steady(0.2, last))) is said

    def test_it_takes_ten_roll_outs(self) -> None:
        assert not self.found((0.4, 1.0, 0.5), course(objective__scores=[0.2] * 5 + [0.6] * 4))

    def test_without_scores_there_is_nothing_to_compare(self) -> None:
        plain = [Measurement([Sample("p", "r", 2, 0.0, {})])] * 3
        for evaluations in (plain, [Measurement([])] * 3, [*measured(0.4, 1.0, 0.5), plain[0]]):
            assert "over-optimised" not in warnings(course(), evaluations, trains_value=True)
