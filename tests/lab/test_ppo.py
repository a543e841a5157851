"""PPO: advantages against enumerated returns, gradients, and the descent to ``π* ∝ π_ref·exp(r/β)``."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from align.system.processes import Processes
from align.training.step import Stepper
from methods.ppo.ppo import PPO
from tests.lab.enumeration import Array, Enumeration, cosine, kl, normalised
from tests.lab.steps import batch_of, gradient, minimise, rolled_out, singles
from tests.lab.tabular import make_policy, parameter, set_scalars, set_table, table

T, BETA = 0.7, 0.5


def rewards(world: Enumeration, policy_SV: Array, reference_SV: Array, score_XY: Array, beta: float = BETA) -> Any:
    """``R_t = −β·log π/π_ref`` of each token, and the score at the last: prompt, response, token."""
    ours, theirs = world.token_logps(policy_SV, T), world.token_logps(reference_SV, T)
    out = [[[-beta * (a - b) for a, b in zip(*pair, strict=True)] for pair in zip(*rows, strict=True)]
           for rows in zip(ours, theirs, strict=True)]  # fmt: skip
    for x, y in product(range(len(world.prompts)), range(len(world.responses))):
        out[x][y][-1] += world.shaped(score_XY)[x, y]
    return out


def to_go(reward: Any) -> Any:
    return [[np.cumsum(steps[::-1])[::-1].tolist() for steps in row] for row in reward]


def set_up(world: Enumeration, value_S: Array | None = None) -> tuple[Any, Array, Array, Array]:
    """A policy away from its reference, with the values given or the true ones."""
    reference, moved, score_XY = world.random_table(0), world.random_table(1), world.random_scores(2)
    policy = make_policy(world, reference)
    policy.require(["value"])
    set_table(policy, "policy", moved)
    if value_S is None:
        value_S = world.values(world.probabilities(moved, T), to_go(rewards(world, moved, reference, score_XY)))
    set_scalars(policy, "value", value_S)
    return policy, reference, moved, score_XY


def method(**settings: Any) -> PPO:
    return PPO(**{"beta": BETA, "whiten_advantages": False, "temperature": T, **settings})


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
def test_gae_with_true_values(lam: float, world: Enumeration, figures: Any) -> None:
    """Whatever λ, ``E[A_t | prefix, y_t] = Q − V``, the sum over the rest of the response."""
    policy, reference, moved, score_XY = set_up(world)
    batch = rolled_out(policy, method(lam=lam), world, singles(world), score_XY, [1.0] * 45)
    advantage = batch["advantage_PKT"][:, 0].numpy().reshape(3, 15, 3)
    p_XY, reward = world.probabilities(moved, T), rewards(world, moved, reference, score_XY)
    value_S = world.values(p_XY, to_go(reward))
    weight_SV, sum_SV, expected_SV = (np.zeros_like(moved) for _ in range(3))
    for x, y in product(range(3), range(15)):
        steps = [*world.steps(x, y), (None, None)]
        for t, ((s, token), (after, _)) in enumerate(pairwise(steps)):
            weight_SV[s, token] += p_XY[x, y]
            sum_SV[s, token] += p_XY[x, y] * advantage[x, y, t]
            expected_SV[s, token] = reward[x][y][t] + (0 if after is None else value_S[after]) - value_S[s]
    asked = weight_SV > 0
    figures.equal(f"E[A], λ = {lam}", expected_SV[asked], sum_SV[asked] / weight_SV[asked], 1e-10)


def test_returns_with_any_values(world: Enumeration, figures: Any) -> None:
    """With λ = 1 the returns have the mean V(prefix), whatever the value model says."""
    policy, reference, moved, score_XY = set_up(world, np.random.default_rng(4).normal(size=len(world.rows)))
    batch = rolled_out(policy, method(lam=1.0), world, singles(world), score_XY, [1.0] * 45)
    found = batch["return_PKT"][:, 0].numpy().reshape(3, 15, 3)
    p_XY = world.probabilities(moved, T)
    returns = [[found[x, y, : world.length_Y[y]].tolist() for y in range(15)] for x in range(3)]
    expected = world.values(p_XY, to_go(rewards(world, moved, reference, score_XY)))
    figures.equal("E[returns], λ = 1, any values", expected, world.values(p_XY, returns), 1e-10)


@pytest.mark.parametrize("case", ["λ = 1, any values", "λ = 0.95, true values", "λ = 0.95, values 0"])
def test_gradient(case: str, world: Enumeration, figures: Any) -> None:
    """``−∇(E[r] − β·KL)``; with λ < 1 and wrong values that of rewards discounted by λ, which is a bias."""
    rng = np.random.default_rng(4)
    values = {"λ = 1, any values": rng.normal(size=len(world.rows)), "λ = 0.95, values 0": np.zeros(len(world.rows))}
    policy, reference, moved, score_XY = set_up(world, values.get(case))
    lam = 1.0 if "λ = 1," in case else 0.95
    batch = rolled_out(policy, method(lam=lam), world, singles(world), score_XY, world.probabilities(moved, T).ravel())
    found = gradient(policy, method(lam=lam), batch) * batch.tokens
    reward = rewards(world, moved, reference, score_XY)
    total_XY = np.array([[sum(steps) for steps in row] for row in reward])
    exact = -world.policy_gradient(moved, total_XY, T)
    if "values 0" not in case:
        figures.equal(f"∇, {case}", exact, found, 1e-10)
        return
    expected, p_XY = np.zeros_like(moved), world.probabilities(moved, T)
    for x, y, t, s, score_V in world.token_scores(moved, T):
        advantage = sum(lam**k * r for k, r in enumerate(reward[x][y][t:]))
        expected[s] -= p_XY[x, y] * advantage * score_V
    figures.equal(f"∇, {case}", expected, found, 1e-10)
    figures.state(
        f"its cosine with the exact gradient, {case}",
        cosine(found, exact),
    )


def test_gradient_after_updates(world: Enumeration, figures: Any) -> None:
    """In later passes ``Σ π_old·ρ·A·∇log π``, without the tokens that the clip holds."""
    policy, _, moved, score_XY = set_up(world)
    p_XY = world.probabilities(moved, T)
    plain = rolled_out(policy, method(), world, singles(world), score_XY, [1.0] * 45)["advantage_PKT"]
    batch = rolled_out(policy, method(), world, singles(world), score_XY, p_XY.ravel())
    later = moved + 0.5 * world.random_table(7)
    set_table(policy, "policy", later)
    old, new, expected, held = world.token_logps(moved, T), world.token_logps(later, T), np.zeros_like(moved), 0
    for x, y, t, s, score_V in world.token_scores(later, T):
        ratio, advantage = np.exp(new[x][y][t] - old[x][y][t]), float(plain[x * 15 + y, 0, t])
        if (advantage > 0 and ratio > 1.2) or (advantage < 0 and ratio < 0.8):
            held += 1
            continue
        expected[s] -= p_XY[x, y] * ratio * advantage * score_V
    assert 10 < held < 100
    figures.equal(
        "∇ of a later pass, clipped at 0.2", expected, gradient(policy, method(), batch) * batch.tokens, 1e-10
    )


def uniform_draw(world: Enumeration) -> list[tuple[int, tuple[int, ...]]]:
    """27 responses to each prompt by a uniform policy, each as often as it is probable."""
    times = [3 ** (3 - n) for n in world.length_Y]
    return [(x, tuple(y for y in range(15) for _ in range(times[y]))) for x in range(3)]


def test_values_learn_the_returns(world: Enumeration, figures: Any) -> None:
    """``∂L/∂V = c·(V − ret)``, and V(prefix) at the minimum, on a roll-out of a uniform policy as it is drawn."""
    reference, uniform, score_XY = world.random_table(0), np.zeros((len(world.rows), 3)), world.random_scores(2)
    value_S = np.random.default_rng(4).normal(size=len(world.rows))
    policy, _, _, _ = set_up(world, value_S)
    set_table(policy, "policy", uniform)
    ppo, reward = method(lam=1.0, value_clip=None), rewards(world, uniform, reference, score_XY)
    batch = rolled_out(policy, ppo, world, uniform_draw(world), score_XY, [1.0] * 3)
    slope_S, returns = np.zeros(len(world.rows)), to_go(reward)
    for x, ys in uniform_draw(world):
        for y in ys:
            for t, (s, _) in enumerate(world.steps(x, y)):
                slope_S[s] += ppo.value_coef * (value_S[s] - returns[x][y][t]) / batch.tokens
    figures.equal("∇ of the value loss", slope_S, gradient(policy, ppo, batch, role="value")[:, 0], 1e-10)
    minimise(policy, ppo, batch, "value")
    found = parameter(policy, "value").detach().numpy()[:-1, 0]
    expected = world.values(world.probabilities(uniform, T), returns)
    figures.equal("values after the descent", expected[expected != 0], found[expected != 0], 1e-6)


def test_whitened_gradient(world: Enumeration, figures: Any) -> None:
    """Whitening divides by the deviation; the mean that it subtracts has no gradient in expectation."""
    reference, uniform, score_XY = world.random_table(0), np.zeros((len(world.rows), 3)), world.random_scores(2)
    policy, _, _, _ = set_up(world, np.zeros(len(world.rows)))
    set_table(policy, "policy", uniform)
    ppo = method(lam=1.0, whiten_advantages=True)
    batch = rolled_out(policy, ppo, world, uniform_draw(world), score_XY, [1.0] * 3)
    reward = rewards(world, uniform, reference, score_XY)
    spread = [a for x, ys in uniform_draw(world) for y in ys for a in to_go(reward)[x][y]]
    total_XY = np.array([[sum(steps) for steps in row] for row in reward])
    expected = -27 * world.policy_gradient(uniform, total_XY, T) / np.sqrt(np.var(spread) + 1e-8)
    figures.equal("∇, whitened", expected, gradient(policy, ppo, batch) * batch.tokens, 1e-10)


def test_demonstrations_are_added(world: Enumeration, figures: Any) -> None:
    """PPO-ptx: γ times the mean over the tokens of the demonstrations of −log π is added to the loss."""
    policy, _, moved, score_XY = set_up(world)
    batch = rolled_out(policy, method(), world, singles(world), score_XY, world.probabilities(moved, T).ravel())
    shown = [(0, 3), (1, 14), (2, 0), (2, 7)]
    mixed = batch_of(world, [(x, (y,)) for x, y in shown])
    plain = gradient(policy, method(), batch)
    score_XYSV, tokens = world.score_function(moved), sum(world.length_Y[y] for _, y in shown)
    expected = plain - 2.5 * sum(score_XYSV[x, y] for x, y in shown) / tokens
    figures.equal("∇, γ = 2.5", expected, gradient(policy, method(ptx_coef=2.5), batch, mixed), 1e-10)


def test_entropy_bonus(world: Enumeration, figures: Any) -> None:
    """``−c·Σ_t ∇H(π_T(·|prefix))`` with ``∂H/∂z = −p·(log p + H)/T``; advantages and β are 0 here."""
    policy, _, moved, score_XY = set_up(world)
    ppo = method(entropy_coef=0.1)
    batch = rolled_out(policy, ppo, world, singles(world), score_XY, [0.0] * 45)
    logp_SV = log_softmax(moved / T, axis=-1)
    p_SV, expected = np.exp(logp_SV), np.zeros_like(moved)
    for x, y in product(range(3), range(15)):
        for s, _ in world.steps(x, y):
            expected[s] += 0.1 * p_SV[s] * (logp_SV[s] - p_SV[s] @ logp_SV[s]) / T
    figures.equal("∇ of the entropy bonus", expected, gradient(policy, ppo, batch) * batch.tokens, 1e-10)


def test_optimum(world: Enumeration, figures: Any) -> None:
    """Roll-outs of all responses, four clipped passes each, at T = 0.7; cut-off responses have the score −1."""
    policy, reference, _, score_XY = set_up(world)
    set_table(policy, "policy", reference)
    ppo = method()
    adam = torch.optim.Adam([parameter(policy, "policy")], lr=0.3)
    falling = torch.optim.lr_scheduler.ExponentialLR(adam, 0.96)
    stepper = Stepper(policy, OnlyPolicy(ppo), Processes(), adam, tokens_per_microbatch=4096, max_grad_norm=1e9)
    for _ in range(90):
        now = table(policy)
        p_XY = world.probabilities(now, T)
        set_scalars(policy, "value", world.values(p_XY, to_go(rewards(world, now, reference, score_XY))))
        batch = rolled_out(policy, ppo, world, singles(world), score_XY, p_XY.ravel())
        for _ in range(ppo.epochs):
            stepper.step(batch)
        falling.step()
    expected = normalised(world.logps(reference, T) + world.shaped(score_XY) / BETA)
    found = kl(world.logps(table(policy), T), expected)
    figures.equal("KL(π ‖ π*) in nats, three prompts", np.zeros(3), found, 1e-3)


class OnlyPolicy:
    """The method without its value role, whose values the test sets."""

    def __init__(self, ppo: PPO) -> None:
        self.ppo, self.trains = ppo, ("policy",)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ppo, name)
