"""Settings of the methods that draw: their range, and the plan of sampling that they make."""

from __future__ import annotations

import math
from typing import Any

import pytest

from align.errors import UserError
from methods import GRPO, PPO, RLOO

SAMPLING: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.75,
    "max_new_tokens": 9,
    "min_new_tokens": 3,
    "stop_strings": ("END",),
}


@pytest.mark.parametrize("cls", [PPO, RLOO, GRPO])
def test_every_setting_of_a_roll_out_reaches_its_plan(cls: Any) -> None:
    plan = cls(responses=5, epochs=3, minibatches=2, **SAMPLING).rollout
    assert (plan.responses, plan.epochs, plan.minibatches, plan.updates) == (5, 3, 2, 6)
    assert {name: getattr(plan.sampling, name) for name in SAMPLING} == SAMPLING
    assert (plan.sampling.top_k, plan.sampling.diversity_penalty) == (0, 0.0)
    assert cls(ptx_coef=0.25).mixing == 0.25
    assert cls().mixing == 0
    assert cls().frozen == ("reference",)
    assert cls().needs_reward


INF, NAN = math.inf, math.nan
REFUSED: list[tuple[str, tuple[float, ...]]] = [
    ("temperature", (0.0, -1.0)),
    ("top_p", (0.0, 1.5)),
    ("max_new_tokens", (0,)),
    ("min_new_tokens", (-1, 65)),
    ("responses", (0,)),
    ("epochs", (0,)),
    ("minibatches", (0,)),
    ("clip", (0.0, 1.0, NAN)),
    ("clip_high", (0.0, -0.1, INF)),
    ("dual_clip", (1.0, 0.5, NAN)),
    ("beta", (-0.1, NAN, INF)),
    ("kl_target", (0.0, -1.0)),
    ("kl_horizon", (0.0, NAN)),
    ("overlong_buffer", (-1, 64)),
    ("score_clip", (0.0, -1.0)),
    ("importance_cap", (1.0, 0.5)),
    ("entropy_coef", (-0.1, NAN)),
    ("ptx_coef", (-0.1, INF)),
    ("target_kl", (0.0, -1.0)),
]
OF_VALUE: list[tuple[str, tuple[float, ...]]] = [
    ("gamma", (-0.1, 1.1, NAN)),
    ("lam", (-0.1, 1.1, NAN)),
    ("value_coef", (-0.1, INF)),
    ("value_clip", (0.0, -1.0)),
    ("value_warmup", (-1,)),
]


@pytest.mark.parametrize(
    ("cls", "name", "value"),
    [
        (cls, name, value)
        for cls in (PPO, RLOO, GRPO)
        for name, values in [*REFUSED, *(OF_VALUE if cls is PPO else [])]
        for value in values
    ],
)
def test_values_out_of_range_are_refused_by_name(cls: Any, name: str, value: float) -> None:
    more: dict[str, Any] = {"kl_target": 1.0} if name == "kl_horizon" else {}
    with pytest.raises(UserError, match=name):
        cls(**{"epochs": 2, **more, name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("gamma", x) for x in (0.0, 1.0)),
        *(("lam", x) for x in (0.0, 1.0)),
        ("value_coef", 0.0),
        ("beta", 0.0),
        ("overlong_buffer", 63),
        ("dual_clip", 1.01),
        ("clip", 0.99),
        ("clip_high", 5.0),
        ("target_kl", 0.01),
    ],
)
def test_values_at_the_ends_of_their_range_are_taken(name: str, value: float) -> None:
    assert getattr(PPO(**{name: value}), name) == value  # pyright: ignore[reportArgumentType]


def test_subtracting_may_cost_nothing() -> None:
    assert PPO(missing_eos="subtract", eos_score=0.0).eos_score == 0
