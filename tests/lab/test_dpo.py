"""DPO and its losses on whole populations of pairs: gradients by the score function, optima in closed form.

A pair (i, j) of the 15 responses to a prompt is there in both orders, weighted by the share P(i ≻ j) of annotators.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq, linprog
from scipy.special import logsumexp

from methods.dpo import DPO
from tests.lab.enumeration import Enumeration, kl, normalised, sigmoid
from tests.lab.steps import gradient, minimise, pairs
from tests.lab.tabular import make_policy, set_table, table

BETA, NOISE = 0.5, 0.1
SLOPES: dict[str, Callable[[Any], Any]] = {  # ∂L/∂h
    "sigmoid": lambda h: -BETA * sigmoid(-BETA * h),
    "cdpo": lambda h: -BETA * ((1 - NOISE) * sigmoid(-BETA * h) - NOISE * sigmoid(BETA * h)),
    "robust": lambda h: -BETA * ((1 - NOISE) * sigmoid(-BETA * h) + NOISE * sigmoid(BETA * h)) / (1 - 2 * NOISE),
    "ipo": lambda h: 2 * (h - 1 / (2 * BETA)),
    "hinge": lambda h: np.where(BETA * h < 1, -BETA, 0.0),
}
METHODS = {
    "sigmoid": DPO(beta=BETA),
    "cdpo": DPO(beta=BETA, loss_type="cdpo", label_smoothing=NOISE),
    "robust": DPO(beta=BETA, loss_type="robust", label_smoothing=NOISE),
    "ipo": DPO(beta=BETA, loss_type="ipo"),
    "ipo, sums": DPO(beta=BETA, loss_type="ipo", ipo_sums=True),
    "hinge": DPO(beta=BETA, loss_type="hinge"),
}
PREFERENCES: dict[str, Callable[[Any], Any]] = {  # P(i ≻ j) of r_i − r_j for which the optimum is known
    "sigmoid": sigmoid,
    "cdpo": lambda gap: (sigmoid(gap) - NOISE) / (1 - 2 * NOISE),  # flipped with probability ε they are Bradley–Terry
    "robust": lambda gap: (1 - NOISE) * sigmoid(gap) + NOISE * sigmoid(-gap),  # as the noisy annotators label
    "ipo": sigmoid,
    "ipo, sums": sigmoid,
}


def scores() -> Any:
    """Differences stay below logit(1 − ε), where a share P(i ≻ j) with cDPO's optimum exists."""
    return np.random.default_rng(5).uniform(-1, 1, size=(3, 15))


@pytest.mark.parametrize("name", METHODS)
def test_gradient(name: str, world: Enumeration, figures: Any) -> None:
    """``∇L = Σ P(i ≻ j)·L′(h)·(∇ log π(y_i) − ∇ log π(y_j)) / Σ P(i ≻ j)``, away from the reference."""
    reference, moved, r_XY = world.random_table(0), world.random_table(1), scores()
    policy = make_policy(world, reference)
    set_table(policy, "policy", moved)
    ratio_XY, score_XYSV = world.logps(moved) - world.logps(reference), world.score_function(moved)
    if name == "ipo":
        ratio_XY, score_XYSV = ratio_XY / world.length_Y, score_XYSV / world.length_Y[:, None, None]
    share_XYY = sigmoid(r_XY[:, :, None] - r_XY[:, None, :]) * (1 - np.eye(15))
    slope_XYY = share_XYY * SLOPES[name.partition(",")[0]](ratio_XY[:, :, None] - ratio_XY[:, None, :])
    coefficient_XY = slope_XYY.sum(2) - slope_XYY.sum(1)
    expected = np.einsum("xy,xysv->sv", coefficient_XY, score_XYSV) / share_XYY.sum()
    found = gradient(policy, METHODS[name], pairs(world, lambda x, i, j: share_XYY[x, i, j]))
    figures.equal(f"∇, {name}", expected, found, 1e-10)


def closed_form(name: str, world: Enumeration, logref_XY: Any, r_XY: Any) -> Any:
    """``log π*``: ``π_ref·exp(r/β)``, for IPO ``π_ref·exp(P(y ≻ μ)/β)`` with μ uniform (Azar et al. 2023, eq. 10)."""
    if name in ("sigmoid", "cdpo", "robust"):
        return normalised(logref_XY + r_XY / BETA)
    share_XY = sigmoid(r_XY[:, :, None] - r_XY[:, None, :]).mean(2)
    if name == "ipo, sums":
        return normalised(logref_XY + share_XY / BETA)
    # With averages per token log(π/π_ref)/T is that share over β, up to a constant that makes the sum 1.
    out = [logref + world.length_Y * share / BETA for logref, share in zip(logref_XY, share_XY, strict=True)]
    constants = [brentq(lambda c, o=o: logsumexp(o + c * world.length_Y), -50, 50, xtol=1e-14) for o in out]
    return np.array([o + c * world.length_Y for o, c in zip(out, constants, strict=True)])


@pytest.mark.parametrize("name", PREFERENCES)
def test_optimum(name: str, world: Enumeration, figures: Any) -> None:
    reference, r_XY = world.random_table(0), scores()
    policy = make_policy(world, reference)
    share = PREFERENCES[name]
    minimise(policy, METHODS[name], pairs(world, lambda x, i, j: share(r_XY[x, i] - r_XY[x, j])))
    expected = closed_form(name, world, world.logps(reference), r_XY)
    found = kl(world.logps(table(policy)), expected)
    figures.equal(f"KL(π ‖ π*) in nats, three prompts, {name}", np.zeros(3), found, 1e-3)


def test_hinge_optimum(world: Enumeration, figures: Any) -> None:
    """The hinge is a linear programme in ``f = log π/π_ref``; its value is the loss at its solution, the least."""
    reference, r_XY = world.random_table(0), scores()
    share_XYY = sigmoid(r_XY[:, :, None] - r_XY[:, None, :]) * (1 - np.eye(15))
    policy = make_policy(world, reference)
    batch = pairs(world, lambda x, i, j: share_XYY[x, i, j])
    value, logit_XY = 0.0, world.logps(reference)
    for x in range(3):
        first, second = np.nonzero(share_XYY[x])
        n = len(first)  # max(0, 1 − β(f_i − f_j)) is the smallest slack ≥ 0 that is ≥ 1 − β(f_i − f_j)
        rows = np.concatenate([-BETA * (np.eye(15)[first] - np.eye(15)[second]), -np.eye(n)], axis=1)
        costs = np.concatenate([np.zeros(15), share_XYY[x, first, second]])
        bounds = [(None, None)] * 15 + [(0, None)] * n
        solved = linprog(costs, A_ub=rows, b_ub=-np.ones(n), bounds=bounds)
        value += solved.fun
        logit_XY[x] += solved.x[:15]
    set_table(policy, "policy", world.table_of(normalised(logit_XY)))
    prepared = METHODS["hinge"].prepare(policy, batch)
    found = METHODS["hinge"].loss(policy, prepared).sums["policy"].item()
    figures.equal("loss at the optimum, hinge", value, found, 1e-8)
    rng = np.random.default_rng(0)
    at_optimum = table(policy)
    for scale in (1e-4, 1e-2, 1.0):
        set_table(policy, "policy", at_optimum + scale * rng.normal(size=at_optimum.shape))
        assert METHODS["hinge"].loss(policy, prepared).sums["policy"].item() >= value - 1e-8


def test_robust_loss_is_unbiased_under_noise(world: Enumeration, figures: Any) -> None:
    """The gradient of the robust loss on noisy labels is that of DPO on clean ones (Chowdhury et al. 2024)."""
    reference, moved, r_XY = world.random_table(0), world.random_table(1), scores()
    policy = make_policy(world, reference)
    set_table(policy, "policy", moved)
    clean = gradient(policy, METHODS["sigmoid"], pairs(world, lambda x, i, j: sigmoid(r_XY[x, i] - r_XY[x, j])))
    noisy = pairs(world, lambda x, i, j: PREFERENCES["robust"](r_XY[x, i] - r_XY[x, j]))
    figures.equal("robust under noise less DPO without", clean, gradient(policy, METHODS["robust"], noisy), 1e-10)
