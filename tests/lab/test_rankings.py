"""RRHF and SLiC-HF on every ranking that the policy could draw: expected losses, gradients, and the optimum."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp

from methods.rrhf import RRHF
from methods.slic import SLiC
from tests.lab.enumeration import Array, Enumeration
from tests.lab.steps import batch_of, every_tuple, gradient
from tests.lab.tabular import make_policy, set_table, table

METHODS = {
    "RRHF": RRHF(),
    "RRHF, rank weight 3": RRHF(rank_weight=3.0),
    "RRHF, the authors' code": RRHF(form="code"),
    "SLiC": SLiC(delta=0.7, sft_weight=0.3),
    "SLiC, best": SLiC(delta=0.7, sft_weight=0.3, target="best"),
    "SLiC, per token": SLiC(delta=0.7, sft_weight=0.3, normalize_length=True),
}


def ranked(world: Enumeration, tuples: Any, score_XY: Array, weights: Any) -> Any:
    """Rankings by score; of equal scores neither is preferred."""
    width = max(len(ys) for _, ys in tuples)
    better_PKK = np.zeros((len(tuples), width, width), dtype=bool)
    for p, (x, ys) in enumerate(tuples):
        r = score_XY[x, list(ys)]
        better_PKK[p, : len(ys), : len(ys)] = r[:, None] > r[None, :]
    return batch_of(world, tuples, better_PKK=better_PKK, weight_P=weights)


def by_definition(name: str, world: Enumeration, x: int, ys: Any, r: Array, S: Array) -> tuple[float, Array]:
    """The loss of one ranking by the papers' text, and its derivative in the S of each response."""
    T = world.length_Y[list(ys)]
    n, slope, loss = len(ys), np.zeros(len(ys)), 0.0
    per_token = "SLiC" not in name or "per token" in name
    scale = 1 / T if per_token else np.ones(n)
    p, margin = S * scale, 0.7 if "SLiC" in name else 0.0
    rank_weight = 3.0 if "weight 3" in name else 1.0
    wins = [sum(r[i] > r[j] for j in range(n)) for i in range(n)]
    best = max(range(n), key=lambda i: (r[i], -i))
    for i, j in product(range(n), range(n)):
        if r[i] > r[j] and margin - p[i] + p[j] > 0:
            loss += rank_weight * (margin - p[i] + p[j])
            slope[i] -= rank_weight * scale[i]
            slope[j] += rank_weight * scale[j]
    if "SLiC" in name:
        targets = np.array(wins) if "best" not in name else sum(wins) * (np.arange(n) == best)
        return loss - 0.3 * float((targets * p).sum()), slope - 0.3 * targets * scale
    row = len(world.prompts[x]) + T.max() if "code" in name else 1
    return loss - S[best] / row, slope - (np.arange(n) == best) / row


@pytest.mark.parametrize("name", METHODS)
def test_expected_loss_and_gradient(name: str, figures: Any) -> None:
    """Over all pairs and triples of draws (two equal draws tie), at a policy that is not the one that drew them."""
    world = Enumeration(longest=2)
    drawn, moved = world.random_table(0), world.random_table(1)
    score_XY = np.round(world.random_scores(2))  # some tie
    policy = make_policy(world, drawn)
    set_table(policy, "policy", moved)
    parts = [every_tuple(world, world.probabilities(drawn), K) for K in (2, 3)]
    tuples = [each for part, _ in parts for each in part]
    weights = [each for _, part in parts for each in part]
    batch = ranked(world, tuples, score_XY, weights)
    S_XY, score_XYSV = world.logps(moved), world.score_function(moved)
    loss, slope, comparisons = 0.0, np.zeros_like(moved), 0.0
    for (x, ys), weight in zip(tuples, weights, strict=True):
        r = score_XY[x, list(ys)]
        value, slopes = by_definition(name, world, x, ys, r, S_XY[x, list(ys)])
        loss += weight * value
        slope += weight * np.einsum("k,ksv->sv", slopes, score_XYSV[x, list(ys)])
        comparisons += weight * sum(a > b for a, b in product(r, r))
    denominator = comparisons if "SLiC" in name else sum(weights)
    with torch.no_grad():
        found = METHODS[name].loss(policy, batch).sums["policy"].item() / METHODS[name].weight(batch)
    figures.equal(f"E[loss], {name}", loss / denominator, found, 1e-10)
    figures.equal(f"∇, {name}", slope / denominator, gradient(policy, METHODS[name], batch), 1e-10)


@pytest.mark.parametrize("name", ["RRHF", "SLiC"])
def test_optimum(name: str, figures: Any) -> None:
    """A convex programme in ``S = log π``: the loss, with ``Σ exp S = 1``; all pairs of responses that differ in score.

    The loss at its solution is its value, and no policy near it has less.
    """
    world = Enumeration(longest=2)
    score_XY = world.random_scores(2)
    tuples = [(x, (i, j)) for x in range(3) for i, j in product(range(7), range(7)) if score_XY[x, i] > score_XY[x, j]]
    batch = ranked(world, tuples, score_XY, np.ones(len(tuples)))
    method, policy = METHODS[name], make_policy(world, world.random_table(0))
    total, logp_XY = 0.0, np.zeros((3, 7))
    for x in range(3):
        value, logp_XY[x] = convex_optimum(name, world, [ys for p, ys in tuples if p == x])
        total += value
    set_table(policy, "policy", world.table_of(logp_XY))
    with torch.no_grad():
        found = method.loss(policy, batch).sums["policy"].item()
    figures.equal(f"loss at the optimum, {name}", total / len(tuples), found / len(tuples), 1e-6)
    rng, at_optimum = np.random.default_rng(0), table(policy)
    for scale in [1e-3] * 10 + [1e-2] * 10 + [0.1] * 10:
        set_table(policy, "policy", at_optimum + scale * rng.normal(size=at_optimum.shape))
        with torch.no_grad():
            assert method.loss(policy, batch).sums["policy"].item() >= total - 1e-6


def convex_optimum(name: str, world: Enumeration, compared: list[tuple[int, int]]) -> tuple[float, Array]:
    """The least loss of a prompt and its S, by SLSQP with a slack variable ≥ 0 for the hinge of each comparison."""
    T, n = world.length_Y, len(world.responses)
    scale, margin, target = (np.ones(n), 0.7, 0.3) if name == "SLiC" else (1 / T, 0.0, 1.0)
    chosen = np.bincount([i for i, _ in compared], minlength=n).astype(float)
    cost = np.concatenate([-target * chosen, np.ones(len(compared))])
    rows = np.zeros((len(compared), n + len(compared)))
    for c, (i, j) in enumerate(compared):
        rows[c, i], rows[c, j], rows[c, n + c] = scale[i], -scale[j], 1.0
    start = np.concatenate([np.full(n, -np.log(n)), np.ones(len(compared))])
    solved = minimize(
        lambda z: float(cost @ z),
        start,
        jac=lambda _: cost,
        method="SLSQP",
        bounds=[(None, 0)] * n + [(0, None)] * len(compared),
        constraints=[
            {"type": "ineq", "fun": lambda z: rows @ z - margin, "jac": lambda _: rows},
            {
                "type": "ineq",
                "fun": lambda z: -logsumexp(z[:n]),
                "jac": lambda z: -np.concatenate([np.exp(z[:n] - logsumexp(z[:n])), np.zeros(len(compared))]),
            },
        ],
        options={"maxiter": 2000, "ftol": 1e-10},
    )
    assert solved.success, solved.message
    return float(solved.fun), solved.x[:n]
