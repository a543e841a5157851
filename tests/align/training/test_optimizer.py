"""The learning rate of each step, by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def weights_after(gradients: Sequence[float], name: Any, **settings: Any) -> tuple[float, float]:
    """A matrix and a vector that begin at 2, after a step with each gradient; the rate is .1, the decay .5."""
    parameters = {
        "matrix": torch.nn.Parameter(torch.full((1, 1), 2.0)),
        "vector": torch.nn.Parameter(torch.tensor([2.0])),
    }
    config = TrainerConfig(optimizer=name, weight_decay=0.5, **settings)
    optimizer = make_optimizer(parameters, config, 0.1)
    for gradient in gradients:
        for parameter in parameters.values():
            parameter.grad = torch.full_like(parameter, gradient)
        optimizer.step()
    return parameters["matrix"].item(), parameters["vector"].item()


def test_adamw_by_hand() -> None:
    """With eps 1 the first step, of gradient 1, is .1·1/(1 + 1); the decay, .1·.5·2, falls on the matrix alone.

    Second step, of gradient 0, with betas .5 and .25: m = .25/.75, v = .1875/.9375 = .2.
    """
    settings: dict[str, Any] = {"betas": (0.5, 0.25), "eps": 1.0}
    assert weights_after([1.0], "adamw", **settings) == pytest.approx((1.85, 1.95))
    second = 0.1 * (1 / 3) / (math.sqrt(0.2) + 1)
    assert weights_after([1.0, 0.0], "adamw", **settings)[1] == pytest.approx(1.95 - second, abs=1e-6)
