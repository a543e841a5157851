"""Hooks that every method has without saying so, and the checks of hyper-parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch

from align.candidates.plan import CandidatePlan
from align.errors import UserError
from align.method.base import (
    Experience,
    Loss,
    Method,
    Optimization,
    PairwiseMethod,
    RolloutPlan,
    require_effect,
    require_not_negative,
    require_positive,
    sequence_sums,
)
from align.method.online import OnlineMethod
from align.model.batch import Batch
from align.sampling.params import SamplingParams

BATCH = Batch(([1], [2]), (([3, 4], [5]), ([6],)), (0, 1), {"weight_P": torch.tensor([0.5, 2.0])})


@dataclass(frozen=True, kw_only=True)
class Plain(Method):
    """Only what must be written."""

    flag: bool = False
    size: int = 3

    unit: ClassVar[Any] = "demonstration"

    def weight(self, batch: Batch) -> float:
        return float(batch.P)

    def loss(self, policy: Any, batch: Batch) -> Loss:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Pairs(PairwiseMethod):
    def loss(self, policy: Any, batch: Batch) -> Loss:
        raise NotImplementedError


def test_the_hooks_of_a_method_that_overrides_none() -> None:
    method, policy, measurement = Plain(), object(), object()
    assert (method.trains, method.frozen, method.roles) == (("policy",), (), ("policy",))
    assert (method.generates, method.dropout, method.headline) == (True, True, "loss")
    assert method.candidates is method.rollout is None
    assert (method.needs_reward, method.cached_columns(passes=2), method.mixing) == (False, (), 0.0)
    data: Any = object()
    assert method.learns_from(data) is data
    assert method.begin(policy) is None  # pyright: ignore
    assert method.prepare(policy, BATCH) is BATCH  # pyright: ignore[reportArgumentType]
    assert method.ask_roles(policy, BATCH) is BATCH  # pyright: ignore[reportArgumentType]
    experience = method.compute_advantages(BATCH, {"beta": 0.5}, lambda tensor: tensor)
    assert experience == Experience(BATCH, {}, {"beta": 0.5})
    assert method.stops_early({"policy/approxkl": 99.0}) is False
    assert method.merit(measurement) is None  # pyright: ignore[reportArgumentType]
    assert method.report(policy, data, None, None) == {}  # pyright: ignore[reportArgumentType]


def of(**fields: Any) -> Method:
    """A method with these properties."""
    return type("Changed", (Plain,), {name: property(lambda _, value=value: value) for name, value in fields.items()})()


def test_roles_are_those_trained_then_those_asked() -> None:
    method = of(trains=("policy", "value"), frozen=("reference", "reward"))
    assert method.roles == ("policy", "value", "reference", "reward")
    assert method.generates
    assert not of(trains=("reward",)).generates
    assert not of(trains=("reward",), frozen=("policy",)).generates


ROLLOUT = RolloutPlan(responses=2, sampling=SamplingParams())


@pytest.mark.parametrize(
    ("rollout", "scored", "needed"),
    [(None, None, False), (ROLLOUT, None, True), (None, True, True), (None, False, False), (ROLLOUT, False, True)],
)
def test_what_needs_a_reward(rollout: RolloutPlan | None, scored: bool | None, needed: bool) -> None:
    plan = None if scored is None else CandidatePlan(samples=2, sampling=SamplingParams(), scored=scored)
    assert of(rollout=rollout, candidates=plan).needs_reward is needed


def test_defaults() -> None:
    assert dataclasses.asdict(Optimization(learning_rate=1.0, full_learning_rate=2.0)) == {
        "learning_rate": 1.0,
        "full_learning_rate": 2.0,
        "epochs": 1.0,
        "batch_size": 16,
        "warmup": 0.1,
        "schedule": "cosine",
    }
    assert (ROLLOUT.epochs, ROLLOUT.minibatches, ROLLOUT.updates) == (1, 1, 1)
    assert RolloutPlan(responses=2, sampling=SamplingParams(), epochs=3, minibatches=4).updates == 12
    assert Loss(sums={}).metrics == {}


def test_an_online_method_learns_from_prompts_without_dropout() -> None:
    assert (OnlineMethod.unit, OnlineMethod.dropout) == ("prompt", False)
    assert OnlineMethod.__abstractmethods__ == {"rollout", "ask_roles", "compute_advantages", "weight", "loss"}
    assert Method.__abstractmethods__ == {"weight", "loss"}


def test_a_pairwise_method_weighs_each_pair() -> None:
    assert Pairs.unit == "pair"
    assert Pairs().weight(BATCH) == 2.5


def test_sums_over_response_tokens_alone() -> None:
    """Beside the mask anything may stand, NaN too; it has no gradient."""
    logp_PKT = torch.tensor([[[-1.0, -2.0], [-4.0, torch.nan]], [[-8.0, 5.0], [torch.inf, 7.0]]], requires_grad=True)
    sums = sequence_sums(logp_PKT, BATCH.mask_PKT)
    assert sums.tolist() == [[-3, -4], [-8, 0]]
    sums.sum().backward()
    assert logp_PKT.grad is not None
    assert logp_PKT.grad.tolist() == [[[1, 1], [1, 0]], [[1, 0], [0, 0]]]


def test_a_setting_without_effect() -> None:
    for settings, shown in (({"flag": True}, "method.flag=true"), ({"size": 4}, "method.size=4")):
        with pytest.raises(UserError, match=rf"{shown} has no effect without method\.x=1; add it, or leave"):
            require_effect(Plain(**settings), False, "method.x=1", "flag", "size")
        require_effect(Plain(**settings), True, "method.x=1", "flag", "size")
    require_effect(Plain(), False, "method.x=1", "flag", "size")
    require_effect(Plain(size=4), False, "method.x=1", "flag")


@pytest.mark.parametrize(
    ("value", "not_negative", "positive"),
    [
        (0.0, True, False),
        (1e-9, True, True),
        (1e9, True, True),
        (-1e-9, False, False),
        (float("inf"), False, False),
        (-float("inf"), False, False),
        (float("nan"), False, False),
    ],
)
def test_ranges(value: float, not_negative: bool, positive: bool) -> None:
    checks: list[tuple[Callable[[], None], bool, str]] = [
        (lambda: require_not_negative(a=1.0, b=value), not_negative, "must be a finite number of at least 0"),
        (lambda: require_positive("dpo", a=1.0, b=value), positive, "dpo needs a finite number above 0"),
    ]
    for check, allowed, words in checks:
        if allowed:
            check()
            continue
        with pytest.raises(UserError, match=rf"method\.b=.*{words}"):
            check()
