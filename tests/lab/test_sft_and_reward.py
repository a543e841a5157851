"""SFT and reward modelling on whole populations: cross-entropy finds the data, Bradley–Terry the reward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from align.settings.type_checks import build
from methods.sft import SFT
from reward.training.modelling import RewardModel
from tests.lab.enumeration import Enumeration, kl, normalised, sigmoid
from tests.lab.steps import batch_of, gradient, minimise, pairs, singles
from tests.lab.tabular import make_policy, parameter, set_scalars, table


@pytest.mark.parametrize("reduction", ["token_mean", "sequence_mean", "sequence_sum"])
def test_sft(reduction: str, world: Enumeration, figures: Any) -> None:
    """The optimum is the distribution q of the data; ``sequence_mean`` weighs a response by 1/T, so it is q/T."""
    start, logq_XY = world.random_table(0), world.logps(world.random_table(1))
    method = build(SFT, {"reduction": reduction})
    policy = make_policy(world, start)
    batch = batch_of(world, singles(world), weight_P=np.exp(logq_XY).ravel())
    per_token = reduction == "sequence_mean"
    weight_XY = np.exp(logq_XY) / (world.length_Y if per_token else 1)
    total = (np.exp(logq_XY) * world.length_Y).sum() if reduction == "token_mean" else 3
    expected = -np.einsum("xy,xysv->sv", weight_XY, world.score_function(start)) / total
    figures.equal(f"∇, {reduction}", expected, gradient(policy, method, batch), 1e-10)
    minimise(policy, method, batch)
    target_XY = normalised(np.log(weight_XY))
    found = kl(world.logps(table(policy)), target_XY)
    figures.equal(f"KL(π ‖ {'q/T' if per_token else 'q'}), {reduction}", np.zeros(3), found, 1e-3)


def test_dft(world: Enumeration, figures: Any) -> None:
    """``−∇L`` is the gradient of ``Σ_s Σ_v q(s, v)·π(v | s)``, which reads the data as a reward of the policy's tokens.

    So the optimum is not q but, after each prefix, the token that the data has most often.
    """
    start, logq_XY = world.random_table(0), world.logps(world.random_table(1))
    policy = make_policy(world, start)
    method, q_XY = SFT(loss_type="dft"), np.exp(logq_XY)
    batch = batch_of(world, singles(world), weight_P=q_XY.ravel())
    expected, data_SV, logp = np.zeros_like(start), np.zeros_like(start), world.token_logps(start)
    for x, y, t, s, score_V in world.token_scores(start):
        expected[s] -= q_XY[x, y] * np.exp(logp[x][y][t]) * score_V
        data_SV[s, world.responses[y][t]] += q_XY[x, y]
    figures.equal("∇, dft", expected / (q_XY * world.length_Y).sum(), gradient(policy, method, batch), 1e-10)
    p_SV = np.exp(start) / np.exp(start).sum(-1, keepdims=True)
    reward_SV = p_SV * (data_SV - (p_SV * data_SV).sum(-1, keepdims=True)) / data_SV.sum()
    figures.equal("−∇ Σ q·π, dft", -reward_SV, gradient(policy, method, batch), 1e-10)


def test_reward_gradient(world: Enumeration, figures: Any) -> None:
    """``∂L/∂r_i = Σ_j [P(i ≻ j)·(−σ(r_j − r_i)) + P(j ≻ i)·σ(r_i − r_j)] / Σ P``."""
    true_XY, r_XY = world.random_scores(2), world.random_scores(3)
    policy = make_policy(world, world.random_table(0))
    policy.require(["reward"])
    set_scalars(policy, "reward", spread(world, r_XY))
    share_XYY = sigmoid(true_XY[:, :, None] - true_XY[:, None, :]) * (1 - np.eye(15))
    wrong_XYY = sigmoid(r_XY[:, None, :] - r_XY[:, :, None])
    slope_XY = (-share_XYY * wrong_XYY).sum(2) + (share_XYY * wrong_XYY).sum(1)
    expected = spread(world, slope_XY / share_XYY.sum())
    found = gradient(policy, RewardModel(), pairs(world, lambda x, i, j: share_XYY[x, i, j]))
    figures.equal("∇, Bradley–Terry", expected, found[:, 0], 1e-10)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_reward_optimum(noise: float, world: Enumeration, figures: Any) -> None:
    """Bradley–Terry's maximum likelihood is the reward up to a constant; with ε also from labels flipped that often.

    A smoothed loss sees ``(1−ε)·P + ε·(1−P)``; it finds r where that is σ(r_i − r_j).
    """
    true_XY = np.random.default_rng(2).uniform(-1, 1, size=(3, 15))
    policy = make_policy(world, world.random_table(0))
    policy.require(["reward"])
    set_scalars(policy, "reward", np.zeros(len(world.rows)))
    share = lambda x, i, j: (sigmoid(true_XY[x, i] - true_XY[x, j]) - noise) / (1 - 2 * noise)  # noqa: E731
    minimise(policy, RewardModel(label_smoothing=noise), pairs(world, share))
    found = parameter(policy, "reward").detach().numpy()[:-1, 0]
    found_XY = np.array([[found[world.rows[(*p, *y)]] for y in world.responses] for p in world.prompts])
    centred = [r_XY - r_XY.mean(1, keepdims=True) for r_XY in (true_XY, found_XY)]
    figures.equal(f"reward less its mean, label smoothing {noise}", *centred, 1e-6)


def spread(world: Enumeration, value_XY: Any) -> Any:
    """A number for each whole response as one for each row of the table."""
    out = np.zeros(len(world.rows))
    for x, prompt in enumerate(world.prompts):
        for y, ids in enumerate(world.responses):
            out[world.rows[(*prompt, *ids)]] = value_XY[x, y]
    return out
