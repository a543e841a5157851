"""SimPO, AlphaPO, ORPO and CPO on the whole population of pairs: the gradient of the enumerated objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from methods.reference_free.cpo import CPO
from methods.reference_free.orpo import ORPO
from methods.reference_free.simpo import SimPO
from tests.lab.enumeration import Enumeration, sigmoid
from tests.lab.steps import gradient, pairs
from tests.lab.tabular import make_policy

METHODS = {
    "SimPO": SimPO(beta=2.0, gamma_ratio=0.4),
    "AlphaPO": SimPO(beta=2.0, gamma_ratio=0.4, alpha=0.3),
    "ORPO": ORPO(lam=0.5),
    "CPO": CPO(beta=0.7, sft_weight=0.0),
    "CPO with its cross-entropy": CPO(beta=0.7, sft_weight=0.6),
}
MARGIN: dict[str, Callable[[Any], tuple[Any, Any]]] = {  # g and g′: the argument of −log σ is g(w) − g(l) − constant
    "SimPO": lambda M: (2.0 * M, 2.0 * np.ones_like(M)),
    "AlphaPO": lambda M: (2.0 * (1 - np.exp(-0.3 * M)) / 0.3, 2.0 * np.exp(-0.3 * M)),
    "ORPO": lambda M: (M - np.log(1 - np.exp(M)), 1 / (1 - np.exp(M))),
    "CPO": lambda S: (0.7 * S, 0.7 * np.ones_like(S)),
}


@pytest.mark.parametrize("name", METHODS)
def test_gradient(name: str, world: Enumeration, figures: Any) -> None:
    """``∇L = Σ P(i ≻ j)·[−σ(−z)·(g′_i ∇M_i − g′_j ∇M_j)] / Σ P``, and the cross-entropy's part."""
    moved, r_XY = world.random_table(1), world.random_scores(3)
    kind = name.partition(" ")[0]
    length_Y = world.length_Y
    scale_Y = np.ones(15) if kind == "CPO" else 1 / length_Y
    score_XYSV = world.score_function(moved) * scale_Y[:, None, None]
    share_XYY = sigmoid(r_XY[:, :, None] - r_XY[:, None, :]) * (1 - np.eye(15))
    g_XY, slope_XY = MARGIN[kind](world.logps(moved) * scale_Y)
    constant = 0.8 if kind in ("SimPO", "AlphaPO") else 0.0
    pull_XYY = share_XYY * sigmoid(-(g_XY[:, :, None] - g_XY[:, None, :] - constant)) * (0.5 if kind == "ORPO" else 1)
    coefficient_XY = -(pull_XYY.sum(2) - pull_XYY.sum(1)) * slope_XY
    wins_XY = share_XYY.sum(2)
    if kind == "ORPO":  # −M_w of each pair
        coefficient_XY -= wins_XY
    if name == "CPO with its cross-entropy":  # a mean over the tokens of the chosen responses
        coefficient_XY -= 0.6 * wins_XY * share_XYY.sum() / (wins_XY * length_Y).sum()
    expected = np.einsum("xy,xysv->sv", coefficient_XY, score_XYSV) / share_XYY.sum()
    policy = make_policy(world, moved)
    batch = pairs(world, lambda x, i, j: share_XYY[x, i, j])
    figures.equal(f"∇, {name}", expected, gradient(policy, METHODS[name], batch), 1e-10)
