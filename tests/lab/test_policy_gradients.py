"""RLOO, GRPO and PPO: the expectation of their gradients over everything that could be drawn, against the exact one.

For K draws per prompt it is the sum over all K-tuples of responses, each weighted by its probability. The loss is
summed (a step divides it by its number of tokens, which is random: see the last figures of RLOO).
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from methods.ppo.dr_grpo import DrGRPO
from methods.ppo.grpo import GRPO
from methods.ppo.rloo import RLOO
from tests.lab.enumeration import Enumeration, cosine
from tests.lab.steps import every_tuple, gradient, rolled_out
from tests.lab.tabular import make_policy, set_table

BETA = 0.3


def setting(K: int) -> tuple[Enumeration, Any, Any, Any]:
    """A world with few enough tuples; tables of policy and reference, scores."""
    world = Enumeration(longest=3 if K == 2 else 2)
    return world, world.random_table(1), world.random_table(0), world.random_scores(2)


def summed_gradient(method: Any, K: int, *, per_step: bool = False, score_XY: Any = None) -> Any:
    """The gradient of the loss, summed over tokens (or divided by the tokens of its step), in expectation."""
    world, table, reference, scores = setting(K)
    policy = make_policy(world, reference)
    set_table(policy, "policy", table)
    tuples, weights = every_tuple(world, world.probabilities(table, method.temperature), K)
    if per_step:
        weights = [w / world.length_Y[list(ys)].sum() for w, (_, ys) in zip(weights, tuples, strict=True)]
    batch = rolled_out(policy, method, world, tuples, scores if score_XY is None else score_XY, weights)
    return gradient(policy, method, batch) * method.weight(batch)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("K", [2, 3])
def test_rloo_is_unbiased(K: int, temperature: float, figures: Any) -> None:
    """K times ``−∇(E[r] − β·KL(π ‖ π_ref))``, both at the sampling temperature."""
    world, table, reference, scores = setting(K)
    ratio_XY = world.logps(table, temperature) - world.logps(reference, temperature)
    expected = -K * world.policy_gradient(table, world.shaped(scores) - BETA * ratio_XY, temperature)
    found = summed_gradient(RLOO(responses=K, temperature=temperature, beta=BETA), K)
    figures.equal(f"RLOO ∇, K = {K}, T = {temperature}", expected, found, 1e-10)


def test_rloo_with_uneven_groups(figures: Any) -> None:
    """Groups of 1, 2 and 3 in one batch: K = 1 has no sibling and gives 0."""
    world, table, reference, scores = setting(3)
    policy = make_policy(world, reference)
    set_table(policy, "policy", table)
    probability_XY = world.probabilities(table)
    parts = [every_tuple(world, probability_XY, K) for K in (1, 2, 3)]
    tuples = [each for part, _ in parts for each in part]
    weights = [each for _, part in parts for each in part]
    batch = rolled_out(policy, RLOO(beta=BETA), world, tuples, scores, weights)
    found = gradient(policy, RLOO(beta=BETA), batch) * batch.tokens
    ratio_XY = world.logps(table) - world.logps(reference)
    expected = -(2 + 3) * world.policy_gradient(table, world.shaped(scores) - BETA * ratio_XY)
    figures.equal("RLOO ∇, K = 1, 2 and 3 in one batch", expected, found, 1e-10)


def test_the_mean_over_tokens(figures: Any) -> None:
    """A step of one prompt divides by the tokens that it drew; the mean of such ratios has another direction."""
    K = 2
    world, table, reference, scores = setting(K)
    r_XY = world.shaped(scores) - BETA * (world.logps(table) - world.logps(reference))
    probability_XY, score_XYSV = world.probabilities(table), world.score_function(table)
    expected = np.zeros_like(table)
    for x, i, j in product(range(3), range(15), range(15)):
        share = probability_XY[x, i] * probability_XY[x, j] / (world.length_Y[i] + world.length_Y[j])
        expected -= share * (r_XY[x, i] - r_XY[x, j]) * (score_XYSV[x, i] - score_XYSV[x, j])
    found = summed_gradient(RLOO(responses=K, beta=BETA), K, per_step=True)
    figures.equal("RLOO ∇ of steps of one prompt", expected, found, 1e-10)
    exact = -world.policy_gradient(table, r_XY)
    figures.state("cosine between it and the exact gradient", cosine(found, exact))


@pytest.mark.parametrize("K", [2, 3])
def test_grpo_without_scale(K: int, figures: Any) -> None:
    """Less the mean of all K, its own score included: (K − 1)/K of the exact gradient, in each of K responses.

    Its steps divide by a constant, not by lengths that are drawn, so that this is what a step has in expectation.
    """
    world, table, _, scores = setting(K)
    expected = -(K - 1) * world.policy_gradient(table, world.shaped(scores))
    longest = 8
    found = summed_gradient(DrGRPO(responses=K, max_new_tokens=longest), K) * longest
    figures.equal(f"Dr. GRPO ∇, K = {K}", expected, found, 1e-10)


@pytest.mark.parametrize("reduction", ["response", "token"])
@pytest.mark.parametrize("K", [2, 3])
def test_grpo(K: int, reduction: Any, figures: Any) -> None:
    """The exact gradient of another reward: the mean advantage of y over its siblings, over its length in GRPO's paper.

    With the mean over tokens the loss is summed here, as for RLOO.
    """
    world, table, _, scores = setting(K)
    r_XY, probability_XY = world.shaped(scores), world.probabilities(table)
    advantage_XY = np.zeros_like(r_XY)
    every = range(len(world.responses))
    for x, y, siblings in product(range(3), every, product(every, repeat=K - 1)):
        group = r_XY[x, [y, *siblings]]
        advantage = (group[0] - group.mean()) / (group.std(ddof=1) + 1e-4)
        advantage_XY[x, y] += probability_XY[x, list(siblings)].prod() * advantage
    if reduction == "response":
        advantage_XY = advantage_XY / world.length_Y
    expected = -K * world.policy_gradient(table, advantage_XY)
    found = summed_gradient(GRPO(responses=K, beta=0.0, reduction=reduction), K)
    name = f"K = {K}, mean over each {reduction}"
    figures.equal(f"GRPO ∇, {name}", expected, found, 1e-10)
    exact = -world.policy_gradient(table, r_XY)
    figures.state(f"cosine between it and the exact gradient, {name}", cosine(found, exact))


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_kl_in_the_loss(estimator: Any, figures: Any) -> None:
    """``K·β·Σ_prefix π(prefix)·∇KL(π(·|prefix) ‖ π_ref(·|prefix))``: exact per token, given the tokens before.

    The gradient of the KL of whole responses also has the effect of a token on those after it.
    """
    K, temperature = 2, 0.7
    world, table, reference, scores = setting(K)
    method = GRPO(
        responses=K, temperature=temperature, beta=BETA, kl_estimator=estimator, missing_eos="none", reduction="token"
    )
    found = summed_gradient(method, K, score_XY=np.zeros_like(scores))
    visits_S = np.zeros(len(world.rows))
    for x, y in product(range(3), range(15)):
        for s, _ in world.steps(x, y):
            visits_S[s] += world.probabilities(table, temperature)[x, y]
    p_SV, q_SV = (np.exp(t / temperature) for t in (table, reference))
    p_SV, q_SV = p_SV / p_SV.sum(-1, keepdims=True), q_SV / q_SV.sum(-1, keepdims=True)
    x_SV = np.log(p_SV / q_SV)
    kl_S1 = (p_SV * x_SV).sum(-1, keepdims=True)
    expected = K * BETA * visits_S[:, None] * p_SV * (x_SV - kl_S1) / temperature
    figures.equal(f"∇ of the KL in the loss, {estimator}", expected, found, 1e-10)
    if estimator == "k3":
        ratio_XY = world.logps(table, temperature) - world.logps(reference, temperature)
        whole = world.policy_gradient(table, ratio_XY, temperature)
        figures.state("cosine between it and ∇KL of whole responses", cosine(found, whole))
