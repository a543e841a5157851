"""The learning rate of each step and the first update of each optimiser, by hand."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from align.errors import UserError
from align.settings.config import TrainerConfig
from align.training import plan as module
from align.training.optimizer import (
    load_optimizer,
    make_optimizer,
    make_schedule,
    save_optimizer,
)
from align.training.plan import require_optimizer


def rates(name: str, *, warmup: float, steps: int, peak: float = 2.0, final: float = 0.0) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    schedule = make_schedule(optimizer, name, warmup=warmup, steps=steps, final=final)
    found: list[float] = []
    for _ in range(steps):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


def test_the_first_step_of_a_warm_up_learns_and_its_last_has_the_full_rate() -> None:
    assert rates("constant", warmup=4, steps=6) == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    assert rates("constant", warmup=0.5, steps=4) == [1.0, 2.0, 2.0, 2.0]
    assert rates("linear", warmup=2, steps=6) == [1.0, 2.0, 2.0, 1.5, 1.0, 0.5]
    falling = [1 + math.cos(math.pi * p) for p in (0, 0.25, 0.5, 0.75)]
    assert rates("cosine", warmup=2, steps=6) == pytest.approx([1.0, 2.0, *falling])


def test_it_ends_at_a_share_of_the_peak() -> None:
    """A tenth of 2 would be reached one step after the last: .2 + 1.8·(1, ¾, ½, ¼); the warm-up stays."""
    assert rates("linear", warmup=0, steps=4, final=0.1) == pytest.approx([2.0, 1.55, 1.1, 0.65])
    assert rates("cosine", warmup=2, steps=4, final=0.5) == pytest.approx([1.0, 2.0, 2.0, 1.5])
    assert rates("constant", warmup=0, steps=2, final=0.1) == [2.0, 2.0]


def test_a_warm_up_of_one_step_is_none() -> None:
    assert rates("constant", warmup=1, steps=3) == rates("constant", warmup=0, steps=3) == [2.0] * 3


def test_a_warm_up_longer_than_the_run_only_rises() -> None:
    assert rates("cosine", warmup=8, steps=4) == [0.25, 0.5, 0.75, 1.0]
    assert rates("linear", warmup=4, steps=4) == [0.5, 1.0, 1.5, 2.0]


@pytest.mark.parametrize("name", ["cosine", "linear", "constant"])
def test_without_warm_up_it_is_the_schedule_of_transformers(name: str) -> None:
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    theirs = get_scheduler(name, optimizer, num_warmup_steps=0, num_training_steps=7)
    expected: list[float] = []
    for _ in range(7):
        expected.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    assert rates(name, warmup=0, steps=7) == expected


def updated(name: Any, gradient: float, **settings: Any) -> tuple[float, float]:
    """A matrix and a vector of 2s after one step with this gradient at a learning rate of .1."""
    matrix, vector = (torch.nn.Parameter(torch.full(shape, 2.0)) for shape in ((1, 1), (1,)))
    config = TrainerConfig(optimizer=name, **settings)
    optimizer = make_optimizer({"matrix": matrix, "vector": vector}, config, 0.1)
    matrix.grad, vector.grad = torch.full((1, 1), gradient), torch.full((1,), gradient)
    optimizer.step()
    assert optimizer.param_groups[0]["weight_decay"] == config.weight_decay  # in a checkpoint too
    return matrix.item(), vector.item()


@pytest.mark.parametrize("name", ["adamw", "rmsprop", "sgd"])
def test_weight_decay_is_decoupled_and_falls_on_matrices_only(name: str) -> None:
    """Without a gradient the weight shrinks by the factor 1 − learning rate · decay, whatever the optimiser divides."""
    assert updated(name, 0.0, weight_decay=0.5) == pytest.approx((2 * (1 - 0.1 * 0.5), 2.0))
    plain, decayed = updated(name, 3.0), updated(name, 3.0, weight_decay=0.5)
    assert decayed == pytest.approx((plain[0] - 2 * 0.1 * 0.5, plain[1]))


def test_the_first_update_of_each_optimizer() -> None:
    """SGD: lr·g. AdamW: the bias is corrected, lr·g/(|g| + eps). RMSprop: lr·g/(√(.01·g²) + eps), α = .99."""
    g, eps = 3.0, 0.5
    assert updated("sgd", g)[1] == pytest.approx(2 - 0.1 * g)
    assert updated("adamw", g, eps=eps)[1] == pytest.approx(2 - 0.1 * g / (g + eps))
    assert updated("rmsprop", g, eps=eps)[1] == pytest.approx(2 - 0.1 * g / (0.1 * g + eps))


def test_the_averages_of_adamw_are_those_asked_for() -> None:
    """Gradients 1, then 0: m̂ = β₁/(1 + β₁) and v̂ = β₂/(1 + β₂) in the second step."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = make_optimizer({"weight": weight}, TrainerConfig(betas=(0.5, 0.25)), 1.0)
    for gradient in (1.0, 0.0):
        weight.grad = torch.full((1,), gradient)
        optimizer.step()
    assert weight.item() == pytest.approx(-1 - (0.5 / 1.5) / math.sqrt(0.25 / 1.25), abs=1e-6)


def test_a_share_of_the_steps_is_rounded() -> None:
    assert rates("constant", warmup=0.3, steps=5) == [1.0, 2.0, 2.0, 2.0, 2.0]  # 1.5, to the even
    assert rates("constant", warmup=0.19, steps=5) == [2.0] * 5  # .95
    assert rates("constant", warmup=2.7, steps=4) == [1.0, 2.0, 2.0, 2.0]  # a number of steps


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(UserError, match="the roles to train have no parameter"):
        make_optimizer({}, TrainerConfig(), 0.1)
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        weights = {"a": torch.nn.Parameter(torch.zeros(2)), "b": torch.nn.Parameter(torch.zeros(2, dtype=dtype))}
        with pytest.raises(UserError, match=rf"b is {str(dtype)[6:]}, .* load the model with dtype=float32"):
            make_optimizer(weights, TrainerConfig(), 0.1)


@pytest.mark.parametrize("shape", [(2,), (2, 3), (1, 1, 1)])
def test_decay_falls_on_two_or_more_dimensions(shape: tuple[int, ...]) -> None:
    weight = torch.nn.Parameter(torch.zeros(shape))
    groups = make_optimizer({"w": weight}, TrainerConfig(weight_decay=0.5), 0.1).param_groups
    decays = {group["weight_decay"] for group in groups for parameter in group["params"] if parameter is weight}
    assert decays == {0.5 if len(shape) > 1 else 0.0}
    assert {group["lr"] for group in groups} == {0.1}


def test_the_8_bit_optimiser_has_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    adam = SimpleNamespace(AdamW8bit=lambda groups, **settings: asked.append((groups, settings)))
    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace(optim=adam))
    monkeypatch.setattr(module, "find_spec", lambda _: "here")
    config = TrainerConfig(optimizer="adamw_8bit", betas=(0.5, 0.75), eps=0.5, weight_decay=0.25)
    weight = torch.nn.Parameter(torch.zeros(1, 1))
    make_optimizer({"w": weight}, config, 0.1)
    assert asked == [([{"params": [weight], "weight_decay": 0.25}], {"lr": 0.1, "betas": (0.5, 0.75), "eps": 0.5})]
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    for ask in (lambda: require_optimizer(config), lambda: make_optimizer({"w": weight}, config, 0.1)):
        with pytest.raises(UserError, match=r"trainer\.optimizer=adamw_8bit needs bitsandbytes"):
            ask()
    require_optimizer(TrainerConfig())


@pytest.mark.parametrize("name", ["adamw", "rmsprop", "sgd"])
def test_a_saved_optimiser_goes_on_as_if_it_had_not_been(name: Any, tmp_path: Path) -> None:
    """Weights and rates of two further steps, to the last bit."""

    def make() -> tuple[torch.nn.Parameter, Any, Any]:
        weight = torch.nn.Parameter(torch.ones(2, 2))
        parameters = {"w": weight, "b": torch.nn.Parameter(torch.ones(2))}
        optimizer = make_optimizer(parameters, TrainerConfig(optimizer=name), 1.0)
        return weight, optimizer, make_schedule(optimizer, "linear", warmup=1, steps=4)

    def do(weight: torch.nn.Parameter, optimizer: Any, schedule: Any, *gradients: float) -> list[float]:
        used: list[float] = []
        for gradient in gradients:
            used.append(schedule.get_last_lr()[0])
            weight.grad = torch.full((2, 2), gradient)
            optimizer.step()
            schedule.step()
        return used

    weight, optimizer, schedule = make()
    do(weight, optimizer, schedule, 1.0, -3.0)
    save_optimizer(optimizer, schedule, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["optimizer.json", "optimizer.safetensors"]
    again, *others = make()
    load_optimizer(*others, tmp_path)
    with torch.no_grad():
        again.copy_(weight)
    rates_ = do(weight, optimizer, schedule, 0.5, 2.0)
    assert do(again, *others, 0.5, 2.0) == rates_ == [pytest.approx(2 / 3), pytest.approx(1 / 3)]
    assert torch.equal(again, weight)


def test_nested_states_are_put_back_where_they_were(tmp_path: Path) -> None:
    """As 8-bit optimisers have them: tensors and numbers, at any depth."""
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    schedule = make_schedule(optimizer, "constant", warmup=0, steps=2)
    optimizer.state[weight] = {"step": 3, "map": {"a": torch.tensor([1.0, 2.0]), "deep": {"b": 0.5}}}
    save_optimizer(optimizer, schedule, tmp_path)
    other = torch.optim.SGD([weight], lr=1.0)
    load_optimizer(other, make_schedule(other, "constant", warmup=0, steps=2), tmp_path)
    found = other.state[weight]
    assert (found["step"], found["map"]["a"].tolist(), found["map"]["deep"]) == (3, [1.0, 2.0], {"b": 0.5})
    assert found.keys() == {"step", "map"}
