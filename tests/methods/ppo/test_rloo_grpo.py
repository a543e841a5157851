"""RLOO and GRPO by their own names: the vectors of docs/methods.md, and the same numbers as PPO's ``advantage``."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from align.errors import UserError
from align.method.base import Experience
from align.model.batch import Batch
from align.model.forward import Logprobs
from methods import GRPO, PPO, RLOO

K = 4


class MovedPolicy:
    """A policy some steps after the one that drew the responses."""

    device = "cpu"
    role = "policy"

    def __init__(self, batch: Batch) -> None:
        step = 0.3 * torch.randn(batch.mask_PKT.shape, generator=torch.Generator().manual_seed(1))
        self.logp_PKT = (batch["old_logp_PKT"] + step).requires_grad_()

    def logprobs(self, _: Batch, *, temperature: float, entropy: bool) -> Logprobs:
        assert temperature > 0
        return Logprobs(self.logp_PKT, self.logp_PKT.square() if entropy else None)


def drawn(seed: int) -> Batch:
    """Five prompts with K responses of 1 to 7 tokens, some of them cut off."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 8, (5, K), generator=generator).tolist()
    batch = Batch(((1, 2),) * 5, tuple(tuple([3] * n for n in row) for row in lengths), tuple(range(5)))

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    shape = batch.mask_PKT.shape
    return batch.with_columns(
        old_logp_PKT=-random(*shape).abs(),
        reference_logp_PKT=-random(*shape).abs(),
        sampler_logp_PKT=-random(*shape).abs(),
        entropy_PKT=random(*shape).abs(),
        score_PK=random(5, K),
        ended_PK=random(5, K) > -1,
    )


def of_scores(*scores: float) -> Batch:
    """One prompt; every response is one token, as likely under the reference as under the policy."""
    count = len(scores)
    same = torch.full((1, count, 1), -1.0)
    return Batch(((1, 2),), (([3],) * count,), (0,)).with_columns(
        old_logp_PKT=same,
        reference_logp_PKT=same,
        entropy_PKT=torch.zeros(1, count, 1),
        score_PK=torch.tensor([scores]),
        ended_PK=torch.ones(1, count, dtype=torch.bool),
    )


def learnt(method: Any, batch: Batch, state: Any = None) -> Experience:
    return method.compute_advantages(batch, state or {}, lambda x: x)


def numbers(metrics: Any) -> dict[str, tuple[float, float]]:
    return {name: (float(value), float(weight)) for name, (value, weight) in metrics.items()}


SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"kl_in": "loss", "kl_estimator": "k3", "beta": 0.3},
    {"kl_in": "reward", "kl_estimator": "k2", "kl_target": 3.0},
    {"normalize_scores": True, "score_clip": 0.7, "missing_eos": "subtract", "eos_score": -0.2},
    {"overlong_buffer": 3, "max_new_tokens": 7, "missing_eos": "none"},
    {"clip_high": 0.3, "dual_clip": 3.0, "importance_cap": 2.0, "entropy_coef": 0.01},
)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: " ".join(settings) or "defaults")
@pytest.mark.parametrize(
    ("cls", "theirs"),
    [
        (RLOO, {"advantage": "rloo"}),
        (GRPO, {"advantage": "group"}),
        (GRPO, {"advantage": "group", "group_scale": "batch"}),
        (GRPO, {"advantage": "group", "group_scale": "none"}),
    ],
    ids=["rloo", "group", "batch", "none"],
)
def test_ppo_with_the_same_settings_is_the_same(cls: Any, theirs: dict[str, str], settings: dict[str, Any]) -> None:
    """Three roll-outs in a row: columns, state, metrics, loss and gradient, to the last bit."""
    own = {name: value for name, value in theirs.items() if name != "advantage"}
    method = cls(responses=K, **own, **settings)
    ppo = PPO(**theirs, **{f.name: getattr(method, f.name) for f in dataclasses.fields(method) if f.name not in theirs})
    assert (method.roles, method.rollout) == (ppo.roles, ppo.rollout)
    state: Any = {}
    for seed in range(3):
        found, expected = learnt(method, drawn(seed), state), learnt(ppo, drawn(seed), state)
        assert found.state == expected.state
        assert found.batch.columns.keys() == expected.batch.columns.keys()
        for name, column in expected.batch.columns.items():
            assert torch.equal(found.batch[name], column), name
        assert numbers(found.metrics) == numbers(expected.metrics)
        state, gradients, losses = found.state, [], []
        for each, experience in ((method, found), (ppo, expected)):
            policy: Any = MovedPolicy(experience.batch)
            loss = each.loss(policy, experience.batch)
            loss.sums["policy"].backward()
            gradients.append(policy.logp_PKT.grad)
            losses.append(numbers(loss.metrics))
        assert torch.equal(*gradients)
        assert losses[0] == losses[1]
        assert gradients[0].abs().max() > 0


def test_the_deviation_of_the_batch_is_that_of_all_ranks() -> None:
    """Scores 0, 2 here and 4, 10 on another rank: deviation √((16 + 4 + 0 + 36) / 3) = √(56/3); here the mean is 1."""
    elsewhere = torch.tensor([2.0, 14.0, 116.0], dtype=torch.float64)  # count, sum, sum of squares
    method = GRPO(group_scale="batch", responses=2)
    total = lambda x: x + elsewhere if x.shape == (3,) else x  # noqa: E731
    found = method.compute_advantages(of_scores(0.0, 2.0), {}, total).batch["advantage_PKT"][0, :, 0].tolist()
    assert found == pytest.approx([-1 / ((56 / 3) ** 0.5 + 1e-4), 1 / ((56 / 3) ** 0.5 + 1e-4)], abs=1e-6)


def test_vector_of_scores() -> None:
    """Deviations of (1, 2, 6, 3) from their mean 3 are −2, −1, 3, 0; times 4/3, or over √(14/3) + 1e-4."""
    batch = of_scores(1.0, 2.0, 6.0, 3.0)
    found = learnt(RLOO(), batch).batch["advantage_PKT"][0, :, 0].tolist()
    assert found == pytest.approx([-2.666667, -1.333333, 4, 0], abs=1e-6)
    found = learnt(GRPO(), batch).batch["advantage_PKT"][0, :, 0].tolist()
    assert found == pytest.approx([-0.925777, -0.462889, 1.388666, 0], abs=1e-6)
    found = learnt(GRPO(group_scale="none"), batch).batch["advantage_PKT"][0, :, 0].tolist()
    assert found == pytest.approx([-2, -1, 3, 0], abs=1e-6)


def beside_its_reference() -> Batch:
    """The PPO vector's response (Σk1 = −.4, Σk3 = .172623) with score 1, and one at its reference with score 0."""
    batch = Batch(((1, 2),), (([3] * 3, [3] * 3),), (0,))
    old = torch.tensor([[[-1.0, -0.5, -2.0], [-1.0, -1.0, -1.0]]])
    return batch.with_columns(
        old_logp_PKT=old,
        reference_logp_PKT=torch.tensor([[[-1.2, -0.4, -1.5], [-1.0, -1.0, -1.0]]]),
        entropy_PKT=torch.zeros(1, 2, 3),
        score_PK=torch.tensor([[1.0, 0.0]]),
        ended_PK=torch.ones(1, 2, dtype=torch.bool),
    )


def test_rloo_takes_the_kl_from_the_score() -> None:
    """R = 1 + .05·.4 = 1.02 and 0; with two responses the baseline is the other one."""
    advantage_PKT = learnt(RLOO(responses=2), beside_its_reference()).batch["advantage_PKT"]
    torch.testing.assert_close(advantage_PKT, torch.tensor([[[1.02] * 3, [-1.02] * 3]]))


def test_grpo_has_the_kl_in_its_loss() -> None:
    """At ρ = 1 the loss is Σ (−A + .04·mean k3) = .04·.172623/3, for the advantages of both responses cancel."""
    experience = learnt(GRPO(responses=2), beside_its_reference())
    torch.testing.assert_close(
        experience.batch["advantage_PKT"], torch.tensor([[[0.707007] * 3, [-0.707007] * 3]]), atol=1e-6, rtol=0
    )
    policy: Any = MovedPolicy(experience.batch)
    policy.logp_PKT = experience.batch["old_logp_PKT"].clone().requires_grad_()
    loss = GRPO(responses=2).loss(policy, experience.batch)
    assert loss.sums["policy"].item() == pytest.approx(0.04 * 0.172623 / 3, abs=1e-6)  # the mean over its tokens
    loss.sums["policy"].backward()
    x = torch.tensor([0.2, -0.1, -0.5])  # logp − logp_ref; ∂(ρ·k3) = k3 + 1 − e^−x = x at ρ = 1
    torch.testing.assert_close(policy.logp_PKT.grad[0, 0], (-0.707007 + 0.04 * x) / 3, atol=1e-6, rtol=0)


def test_only_the_settings_that_apply() -> None:
    ppo, rloo, grpo = ({field.name for field in dataclasses.fields(cls)} for cls in (PPO, RLOO, GRPO))
    assert grpo - rloo == {"group_scale"}
    assert rloo < grpo < ppo
    assert not rloo & {"advantage", "gamma", "lam", "value_coef", "value_clip", "value_init", "value_warmup"}
    assert not rloo & {"whiten_rewards", "whiten_advantages"}
    assert (RLOO().trains, GRPO().trains) == (("policy",), ("policy",))


@pytest.mark.parametrize("cls", [RLOO, GRPO])
def test_wrong_settings(cls: Any) -> None:
    for settings, words in [
        ({"responses": 1}, r"method\.responses=1: .* draw at least 2"),
        ({"kl_in": "score"}, r"kl_in must be reward or loss, not 'score'"),
        ({"temperature": 0.0}, rf"method\.temperature=0\.0: {cls.__name__} needs"),
        ({"clip": 1.0}, r"method\.clip=1\.0"),
    ]:
        with pytest.raises(UserError, match=words):
            cls(**settings)
    with pytest.raises(UserError, match=r"group_scale must be group, batch or none, not 'all'"):
        GRPO(group_scale="all")  # pyright: ignore[reportArgumentType]
