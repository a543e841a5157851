"""The learning rate of each step and the first update of each optimiser, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from align.settings.config import TrainerConfig
from align.training.optimizer import make_optimizer, make_schedule


def rates(name: str, *, warmup: float, steps: int, peak: float = 2.0) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    schedule = make_schedule(optimizer, name, warmup=warmup, steps=steps)
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
