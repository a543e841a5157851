"""KTO and BCO on every response, judged good or bad: the gradient of the enumerated objective, with its constants."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from methods.unpaired.bco import BCO
from methods.unpaired.kto import KTO
from methods.unpaired.unpaired import Unpaired
from tests.lab.enumeration import Enumeration, sigmoid
from tests.lab.steps import batch_of, gradient, singles
from tests.lab.tabular import make_policy, set_table

BETA = 0.5
METHODS: dict[str, Unpaired] = {
    "KTO": KTO(beta=BETA, desirable_weight=1.3, undesirable_weight=0.7),
    "KTO, baseline 0": KTO(beta=BETA, baseline=False),
    "BCO": BCO(beta=BETA),
}


@pytest.mark.parametrize("name", METHODS)
def test_gradient(name: str, world: Enumeration, figures: Any) -> None:
    """``∇L = Σ [P·l′(good) + (1 − P)·l′(bad)]·β·∇S / (number of prompts and responses)``, P = σ(r)."""
    reference, moved, r_XY = world.random_table(0), world.random_table(1), world.random_scores(3)
    policy = make_policy(world, reference)
    set_table(policy, "policy", moved)
    ratio_XY, score_XYSV, P_XY = world.logps(moved) - world.logps(reference), world.score_function(moved), sigmoid(r_XY)
    reward_XY = BETA * ratio_XY
    if name == "BCO":
        delta = ((P_XY * reward_XY).sum() / P_XY.sum() + ((1 - P_XY) * reward_XY).sum() / (1 - P_XY).sum()) / 2
        slope_XY = -P_XY * sigmoid(-(reward_XY - delta)) + (1 - P_XY) * sigmoid(reward_XY - delta)
    else:
        # Each prompt meets every response once more, as an answer to the prompt before.
        z = 0.0 if "0" in name else BETA * max(0.0, ratio_XY.mean())
        assert z > 0 or "0" in name
        bump_XY = sigmoid(reward_XY - z) * sigmoid(z - reward_XY)
        good, bad = (1.3, 0.7) if name == "KTO" else (1.0, 1.0)
        slope_XY = (-good * P_XY + bad * (1 - P_XY)) * bump_XY
    expected = np.einsum("xy,xysv->sv", BETA * slope_XY, score_XYSV) / P_XY.size
    every = singles(world)
    shares = [P_XY[x, y] for x, (y,) in every]
    batch = batch_of(
        world,
        [*every, *every],
        weight_P=[*shares, *(1 - share for share in shares)],
        good_PK=torch.tensor([[True]] * len(every) + [[False]] * len(every)),
    )
    figures.equal(f"∇, {name}", expected, gradient(policy, METHODS[name], batch), 1e-10)
