"""The plan of a run by hand: defaults of the method, what the configuration replaces, steps of the data."""

from __future__ import annotations

from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest

from align.errors import UserError
from align.method.base import Optimization, RolloutPlan
from align.sampling.params import SamplingParams
from align.settings.config import TrainerConfig
from align.training.plan import Plan, require_effects

DEFAULT = Optimization(
    learning_rate=3e-4, full_learning_rate=2e-5, epochs=2, batch_size=4, warmup=0.25, schedule="linear"
)


def plan(config: dict[str, Any], *, examples: int = 10, adapters: bool = True, rollout: Any = None) -> Plan:
    method: Any = SimpleNamespace(optimization=DEFAULT, rollout=rollout)
    return Plan.of(TrainerConfig(**config), method, examples=examples, adapters=adapters)


def drawing(epochs: int, minibatches: int) -> RolloutPlan:
    return RolloutPlan(responses=2, sampling=SamplingParams(), epochs=epochs, minibatches=minibatches)


def test_the_defaults_are_those_of_the_method() -> None:
    """Ten examples are three batches of at most four."""
    assert asdict(plan({})) == {
        "learning_rate": 3e-4,
        "schedule": "linear",
        "warmup": 0.25,
        "batch_size": 4,
        "turns_per_epoch": 3,
        "steps_per_epoch": 3,
        "steps": 6,
        "minibatches": 1,
    }
    assert plan({}, adapters=False).learning_rate == 2e-5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 1e-3),
        ("learning_rate", 0.0),
        ("schedule", "constant"),
        ("warmup", 3.0),
        ("warmup", 0.0),
        ("batch_size", 1),
        ("steps", 17),
    ],
)
@pytest.mark.parametrize("adapters", [False, True])
def test_a_setting_that_is_given_takes_the_place_of_the_default(name: str, value: Any, adapters: bool) -> None:
    """Also one of 0; and of that one alone."""
    given, default = asdict(plan({name: value}, adapters=adapters)), asdict(plan({}, adapters=adapters))
    assert given[name] == value
    follows = {"batch_size": {"turns_per_epoch", "steps_per_epoch", "steps"}}.get(name, set())
    assert {key for key in given if given[key] != default[key]} == {name} | follows


@pytest.mark.parametrize(
    ("examples", "epochs", "turns", "steps"),
    [
        (8, 1, 2, 2),
        (9, 1, 3, 3),
        (1, 1, 1, 1),
        (12, 0.5, 3, 2),  # 1.5, rounded to the even
        (40, 0.26, 10, 3),
        (40, 0.24, 10, 2),
        (40, 0.01, 10, 1),  # at least one
    ],
)
def test_steps_of_passes(examples: int, epochs: float, turns: int, steps: int) -> None:
    found = plan({"epochs": epochs}, examples=examples)
    assert (found.turns_per_epoch, found.steps_per_epoch, found.steps) == (turns, turns, steps)


@pytest.mark.parametrize(
    ("examples", "batch_size", "turns"),
    [(10, 4, 2), (8, 4, 2), (4, 4, 1), (3, 3, 1)],  # whole batches; a batch of at most all prompts
)
def test_a_rollout_serves_several_steps(examples: int, batch_size: int, turns: int) -> None:
    found = plan({}, examples=examples, rollout=drawing(epochs=5, minibatches=3))
    assert (found.batch_size, found.turns_per_epoch, found.minibatches) == (batch_size, turns, 3)
    assert (found.steps_per_epoch, found.steps) == (15 * turns, 30 * turns)


def test_a_minibatch_has_a_prompt() -> None:
    assert plan({"batch_size": 3}, rollout=drawing(1, 3)).minibatches == 3
    with pytest.raises(UserError, match=r"trainer\.batch_size=3 prompts cannot be cut into 4 minibatches"):
        plan({"batch_size": 3}, rollout=drawing(1, 4))
    with pytest.raises(UserError, match=r"trainer\.batch_size=2 prompts cannot be cut into 4 minibatches"):
        plan({}, examples=2, rollout=drawing(1, 4))


def test_settings_that_would_have_no_effect_are_refused() -> None:
    from methods import DPO, SFT

    require_effects(TrainerConfig(final_learning_rate=0.1, residual_dropout=0.3, schedule="linear"), SFT())
    require_effects(TrainerConfig(final_learning_rate=0.1), SFT())  # cosine
    with pytest.raises(UserError, match=r"trainer\.final_learning_rate=0\.1 has no effect on trainer\.schedule=const"):
        require_effects(TrainerConfig(final_learning_rate=0.1, schedule="constant"), SFT())
    with pytest.raises(UserError, match=r"trainer\.residual_dropout=0\.3 has no effect on DPO, which compares"):
        require_effects(TrainerConfig(residual_dropout=0.3), DPO())
