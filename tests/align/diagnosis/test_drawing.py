"""Rules on roll-outs, on both sides of their bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from align.evaluation.measurement import Measurement
from tests.align.diagnosis.courses import answered, course, different, names, steady

HEALTHY: dict[str, Sequence[float]] = {
    "rollout/objective/scores": steady(0.2, 0.6),
    "rollout/objective/kl": steady(0.0, 4.0),
    "rollout/objective/entropy": steady(20.0, 20.0),
    "rollout/tokens/lengths": steady(20.0, 20.0),
    "rollout/identical": steady(0.1, 0.1),
    "rollout/val/num_eos_tokens": steady(0.9, 0.9),
    "rollout/val/explained_variance": steady(0.5, 0.5),
    "train/policy/clipfrac": steady(0.1, 0.1),
}


def changed(name: str, values: Sequence[float]) -> Any:
    return course({**HEALTHY, name: values})


def test_a_healthy_run() -> None:
    assert names(course(HEALTHY)) == []


@pytest.mark.parametrize(
    ("name", "metric", "healthy", "ill"),
    [
        ("kl", "rollout/objective/kl", steady(0.0, 20.0), steady(0.0, 20.01)),
        ("entropy", "rollout/objective/entropy", steady(20.0, 5.0), steady(20.0, 4.99)),
        ("identical", "rollout/identical", steady(0.1, 0.5), steady(0.1, 0.51)),
        ("identical", "rollout/identical", steady(0.4, 0.6), steady(0.4, 0.61)),  # of a model that repeats itself
        ("cut off", "rollout/val/num_eos_tokens", steady(0.9, 0.5), steady(0.9, 0.49)),
        ("no end", "rollout/val/num_eos_tokens", steady(0.9, 0.5), steady(0.9, 0.05)),
        ("value", "rollout/val/explained_variance", steady(1.0, 0.0), steady(1.0, -0.01)),
        ("clip fraction", "train/policy/clipfrac", steady(0.0, 0.3), steady(0.0, 0.31)),
    ],
)
def test_bounds(name: str, metric: str, healthy: list[float], ill: list[float]) -> None:
    assert names(changed(metric, healthy)) == []
    assert names(changed(metric, ill)) == [name]


@pytest.mark.parametrize(
    ("before", "now", "said"), [(20.0, 30.0, False), (20.0, 30.1, True), (30.0, 20.1, False), (30.0, 19.9, True)]
)
def test_length_drifts_up_and_down(before: float, now: float, said: bool) -> None:
    """With an entropy per token that stays."""
    run = course(
        {
            **HEALTHY,
            "rollout/tokens/lengths": steady(before, now),
            "rollout/objective/entropy": steady(before, now),
        }
    )
    assert names(run) == (["length"] if said else [])


def test_entropy_is_that_of_a_token() -> None:
    """Responses of a third of the length have a third of the entropy, which is no collapse."""
    run = course(
        {**HEALTHY, "rollout/tokens/lengths": steady(60.0, 12.0), "rollout/objective/entropy": steady(60.0, 12.0)}
    )
    assert names(run) == ["length"]


@pytest.mark.parametrize("metric", ["rollout/objective/kl", "rollout/identical", "train/policy/clipfrac"])
def test_one_roll_out_is_no_course(metric: str) -> None:
    """The mean of five counts."""
    value = 99.0 if metric.endswith("kl") else 1.0
    assert names(changed(metric, [*[0.1] * 9, value])) == []


def test_a_value_has_ten_roll_outs_of_time_and_longer_while_it_improves() -> None:
    """From −2.0 it rises by .2 a roll-out: the change of 1.0 is above two errors, 2·.2/√2·√(2/5) = .18."""
    name = "rollout/val/explained_variance"
    assert names(changed(name, [-1.0] * 9)) == []
    assert names(changed(name, [-1.0] * 10)) == ["value"]
    assert names(changed(name, [-2.0 + 0.2 * i for i in range(10)])) == []


@pytest.mark.parametrize(
    ("spreads", "said"),
    [
        ([0.5] * 5 + [0.0] * 5, True),
        ([0.0] * 5, True),
        ([0.0] * 4, True),  # all of a short run
        ([0.5] * 6 + [0.0] * 4, False),
        ([0.0] * 9 + [1e-9], False),
    ],
)
def test_a_reward_that_is_the_same_for_every_response(spreads: list[float], said: bool) -> None:
    assert ("constant reward" in names(changed("rollout/scores/mine/std", spreads))) == said


def test_four_roll_outs_of_a_run_that_goes_on_are_too_few() -> None:
    for name, values in (("scores/mine/std", [0.0] * 4), ("objective/ties", [1.0] * 4), ("teaches", [0.0] * 4)):
        metrics = {**HEALTHY, f"rollout/{name}": values}
        assert names(course(metrics, steps=100)) == []
        assert names(course(metrics)) == ["constant reward"]


@pytest.mark.parametrize(
    ("name", "ill", "healthy"),
    [("objective/ties", 1.0, 0.99), ("pairs/ties", 1.0, 0.99), ("teaches", 0.0, 0.01)],
)
def test_a_reward_that_is_the_same_for_every_response_to_a_prompt(name: str, ill: float, healthy: float) -> None:
    """Prompts differ, so that the scores have a spread."""
    apart = {**HEALTHY, "rollout/scores/mine/std": [0.5] * 10}
    assert names(course({**apart, f"rollout/{name}": [healthy] * 5 + [ill] * 5})) == ["constant reward"]
    assert names(course({**apart, f"rollout/{name}": [ill] * 6 + [healthy, ill, ill, ill]})) == []


def test_a_mixture_of_scores_is_constant_only_if_each_is() -> None:
    parts = {"rollout/scores/all/std": [0.0] * 10, "rollout/scores/all/part/std": [0.1] * 10}
    assert names(course({**HEALTHY, **parts})) == []


class TestOverOptimised:
    def found(self, *scores: float, reward: Sequence[float] = HEALTHY["rollout/objective/scores"]) -> bool:
        evaluations = [answered("one", scores=[score]) for score in scores]
        run = course({**HEALTHY, "rollout/objective/scores": reward}, *evaluations)
        return "over-optimised" in names(run)

    @pytest.mark.parametrize(
        ("scores", "said"),
        [
            ((0.4, 1.0, 0.94), True),
            ((0.4, 1.0, 0.96), False),  # a fall of at most a twentieth
            ((0.4, 1.0, 0.5, 0.97), False),  # it has recovered
            ((1.0, 0.4, 0.5, 0.6), True),  # the peak was the start
            ((-0.6, -0.4, -0.41), False),  # a twentieth of the peak is .02
            ((-0.6, -0.4, -0.43), True),
            ((1.0, 0.5), False),  # one answer is too few to say
        ],
    )
    def test_a_fall_from_the_peak(self, scores: tuple[float, ...], said: bool) -> None:
        assert self.found(*scores) is said

    def test_the_training_reward_must_rise_over_ten_roll_outs(self) -> None:
        for last, said in ((0.2, False), (0.1, False), (0.21, True)):
            assert self.found(0.4, 1.0, 0.5, reward=steady(0.2, last)) is said
        assert not self.found(0.4, 1.0, 0.5, reward=[0.2] * 5 + [0.6] * 4)

    def test_without_an_evaluation_on_the_way_the_win_rate_decides(self) -> None:
        """Of 20 answers 4 or 6 win: Wilson's intervals are .08 to .42 and .15 to .52."""
        for wins, said in ((4, True), (6, False)):
            texts = different(20)
            before = answered(*texts, scores=[0.5] * 20)
            after = answered(*texts, scores=[1.0] * wins + [0.0] * (20 - wins))
            assert ("over-optimised" in names(course(HEALTHY, before, after))) is said

    def test_without_scores_there_is_nothing_to_compare(self) -> None:
        assert names(course(HEALTHY, *[Measurement([])] * 3)) == []
