"""The loss of PPO, RLOO and GRPO: each setting reaches its place, and every metric has its denominator."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from align.evaluation.measurement import Measurement, Sample
from align.method.base import Loss
from align.model.batch import Batch
from align.model.forward import Logprobs
from methods import GRPO, PPO, RLOO
from tests.methods.ppo.rollout_by_hand import (
    ADVANTAGE,
    ENTROPY,
    FLAT_ADVANTAGE,
    FLAT_ENTROPY,
    FLAT_MOVED,
    FLAT_OLD,
    FLAT_REFERENCE,
    OLD,
    REFERENCE,
    Moved,
    experienced,
    means,
    padded,
    rollout,
)


def update(method: Any, **columns: Tensor) -> tuple[Loss, Moved]:
    batch = rollout(advantage_PKT=padded(ADVANTAGE, 9.0), beta_P=torch.tensor([0.5, 0.25]), **columns)
    policy: Any = Moved()
    return method.loss(policy, batch), policy


def surrogate(low: float = 0.2, high: float = 0.2, cap: float = 1.0, sampler: float | None = None) -> list[float]:
    """``max(−Aρ, −A·clip ρ)`` of each token, times the importance weight of a sampler as sure as this."""
    out: list[float] = []
    for old, moved, a in zip(FLAT_OLD, FLAT_MOVED, FLAT_ADVANTAGE, strict=True):
        ratio = math.exp(moved - old)
        value = max(-a * ratio, -a * min(max(ratio, 1 - low), 1 + high))
        out.append(value if sampler is None else value * min(math.exp(old - sampler), cap))
    return out


class TestLoss:
    def test_the_plain_loss_and_its_metrics(self) -> None:
        loss, policy = update(PPO(temperature=0.7))
        ratios = [math.exp(m - o) for o, m in zip(FLAT_OLD, FLAT_MOVED, strict=True)]
        assert loss.sums["policy"].item() == pytest.approx(sum(surrogate()), rel=1e-5)
        expected = {
            "loss": sum(surrogate()) / 8,
            "loss/policy": sum(surrogate()) / 8,
            "policy/entropy": sum(FLAT_ENTROPY) / 8,
            "policy/approxkl": sum((m - o) ** 2 / 2 for o, m in zip(FLAT_OLD, FLAT_MOVED, strict=True)) / 8,
            "val/ratio": sum(ratios) / 8,
        }
        found = means(loss.metrics)
        assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)
        assert policy.asked == [(0.7, False)]
        assert PPO().weight(rollout()) == 8

    def test_the_upper_clip(self) -> None:
        """ε_high alone where it is given; ε for both where not. The share that is clipped follows."""
        for settings, low, high in (({"clip": 0.1}, 0.1, 0.1), ({"clip": 0.1, "clip_high": 0.4}, 0.1, 0.4)):
            loss, _ = update(PPO(**settings))
            assert loss.sums["policy"].item() == pytest.approx(sum(surrogate(low, high)), rel=1e-5)
            clipped = sum(
                (m - o > math.log(1 + high) and a > 0) or (m - o < math.log(1 - low) and a < 0)
                for o, m, a in zip(FLAT_OLD, FLAT_MOVED, FLAT_ADVANTAGE, strict=True)
            )
            assert means(loss.metrics)["policy/clipfrac"] == pytest.approx(clipped / 8)

    def test_importance_weights_are_those_of_the_policy_that_was_asked(self) -> None:
        """Of logp_old, which stays, and not of the policy that is trained; nor without ``importance_cap``."""
        sampler = torch.full((2, 2, 3), -1.0)
        loss, _ = update(PPO(importance_cap=1.25), sampler_logp_PKT=sampler)
        assert loss.sums["policy"].item() == pytest.approx(sum(surrogate(cap=1.25, sampler=-1.0)), rel=1e-5)
        loss, _ = update(PPO(), sampler_logp_PKT=sampler)
        assert loss.sums["policy"].item() == pytest.approx(sum(surrogate()), rel=1e-5)

    def test_the_dual_clip(self) -> None:
        """The response of one token, A = −2, rose by e^.25 = 1.284: bounded at 2·1.1."""
        loss, _ = update(PPO(dual_clip=1.1))
        bounded = [min(x, -a * 1.1) if a < 0 else x for x, a in zip(surrogate(), FLAT_ADVANTAGE, strict=True)]
        assert loss.sums["policy"].item() == pytest.approx(sum(bounded), rel=1e-5)
        assert sum(bounded) < sum(surrogate()) - 0.3

    def test_an_entropy_bonus_lowers_the_loss(self) -> None:
        loss, policy = update(PPO(entropy_coef=0.5))
        assert policy.asked == [(0.7, True)]
        assert loss.sums["policy"].item() == pytest.approx(sum(surrogate()) - 0.5 * sum(FLAT_ENTROPY), rel=1e-5)
        assert means(loss.metrics)["loss/policy"] == pytest.approx(sum(surrogate()) / 8, rel=1e-5)

    @pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
    def test_the_kl_in_the_loss_has_the_weight_of_its_roll_out(self, estimator: Any) -> None:
        """β is .5 for the first prompt's five tokens and .25 for the three of the second; k2 is not times ρ."""
        loss, _ = update(PPO(kl_in="loss", kl_estimator=estimator))
        expected = sum(surrogate())
        for i, (old, moved, reference) in enumerate(zip(FLAT_OLD, FLAT_MOVED, FLAT_REFERENCE, strict=True)):
            x, ratio = moved - reference, math.exp(moved - old)
            k = {"k1": ratio * x, "k2": x * x / 2, "k3": ratio * (math.exp(-x) - 1 + x)}[estimator]
            expected += (0.5 if i < 5 else 0.25) * k
        assert loss.sums["policy"].item() == pytest.approx(expected, rel=1e-5)
        assert means(loss.metrics)["loss/policy"] == pytest.approx(sum(surrogate()) / 8, rel=1e-5)
        assert means(loss.metrics)["loss"] == pytest.approx(expected / 8, rel=1e-5)

    def test_without_a_weight_there_is_no_kl_in_the_loss(self) -> None:
        loss, _ = update(GRPO(beta=0.0, kl_in="loss", reduction="token"))
        assert loss.sums["policy"].item() == pytest.approx(sum(surrogate()), rel=1e-5)

    def test_while_the_value_warms_up_the_policy_has_no_loss(self) -> None:
        """Whose prompts they are is said prompt by prompt: here the second's three tokens count."""
        loss, policy = update(PPO(value_warmup=1), warming_P=torch.tensor([1.0, 0.0]))
        loss.sums["policy"].backward()
        assert loss.sums["policy"].item() == pytest.approx(sum(surrogate()[5:]), rel=1e-5)
        assert policy.logp_PKT.grad is not None
        assert policy.logp_PKT.grad[0].abs().max() == 0 < policy.logp_PKT.grad[1].abs().max()


class TestValue:
    class Values(Moved):
        role = "value"

        def values(self, _: Batch) -> Tensor:
            return self.logp_PKT

    @pytest.mark.parametrize("clip", [0.2, 0.05, None])
    def test_its_loss_has_its_own_weight_and_clip(self, clip: float | None) -> None:
        returned = padded(REFERENCE, -9.0)
        batch = rollout(return_PKT=returned, old_value_PKT=padded(OLD, 9.0))
        policy: Any = self.Values()
        loss = PPO(value_coef=0.5, value_clip=clip).loss(policy, batch)
        total, held = 0.0, 0
        for old, value, target in zip(FLAT_OLD, FLAT_MOVED, FLAT_REFERENCE, strict=True):
            near = value if clip is None else min(max(value, old - clip), old + clip)
            total += max((value - target) ** 2, (near - target) ** 2) / 2
            held += (near - target) ** 2 > (value - target) ** 2 + 1e-12
        assert loss.sums.keys() == {"value"}
        assert loss.sums["value"].item() == pytest.approx(0.5 * total, rel=1e-5)
        expected = {"loss/value": total / 8} | ({} if clip is None else {"val/clipfrac": held / 8})
        assert means(loss.metrics) == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize(("gamma", "lam"), [(0.5, 1.0), (1.0, 0.5), (0.5, 0.25)])
    def test_discount_and_lambda_are_not_each_other(self, gamma: float, lam: float) -> None:
        """Of the first response: rewards 0, 0, 1 (β 0), values 1, 2, −1."""
        method = PPO(gamma=gamma, lam=lam, beta=0.0, whiten_advantages=False)
        found = experienced(method).batch["advantage_PKT"][0, 0].tolist()
        d2 = 1 - -1
        d1 = gamma * -1 - 2
        d0 = gamma * 2 - 1
        c = gamma * lam
        assert found == pytest.approx([d0 + c * d1 + c * c * d2, d1 + c * d2, d2])

    def test_rewards_are_scaled_and_not_shifted(self) -> None:
        """Last tokens have 1, −1 (cut off), −2 and .5, the four others 0; the deviation is about the mean −.1875."""
        method = PPO(whiten_rewards=True, beta=0.0, lam=1.0, whiten_advantages=False)
        returned = experienced(method).batch["return_PKT"]
        mean = -1.5 / 8
        deviation = math.sqrt((1 + 1 + 4 + 0.25) / 8 - mean**2)

        def scaled(*rewards: float) -> float:
            return sum((r - mean) / deviation + mean for r in rewards)

        assert returned[0, 0, 0].item() == pytest.approx(scaled(0, 0, 1), rel=1e-5)
        assert returned[1, 0, 0].item() == pytest.approx(scaled(-2), rel=1e-5)


@pytest.mark.parametrize("method", [PPO(temperature=0.5), RLOO(temperature=0.5), GRPO(temperature=0.5)])
def test_each_role_is_asked_once_at_the_sampling_temperature(method: Any) -> None:
    """The policy with its entropy; the value only where there is one."""
    asked: list[Any] = []

    class Roles:
        role = "policy"

        @contextmanager
        def use(self, role: str) -> Generator[None]:
            before, self.role = self.role, role
            yield
            self.role = before

        def logprobs(self, _: Batch, *, temperature: float = 1.0, entropy: bool = False) -> Logprobs:
            asked.append((self.role, temperature, entropy))
            return Logprobs(padded(OLD if self.role == "policy" else REFERENCE), padded(ENTROPY) if entropy else None)

        def values(self, _: Batch) -> Tensor:
            asked.append((self.role, "values"))
            return padded(ADVANTAGE)

    batch = Batch(((1, 2), (1,)), tuple(tuple([3] * len(r) for r in row) for row in OLD), (0, 1))
    policy: Any = Roles()
    found = method.ask_roles(policy, batch).columns
    has_value = isinstance(method, PPO)
    assert asked == [("policy", 0.5, True), ("reference", 0.5, False), *[("value", "values")] * has_value]
    expected = {"old_logp_PKT": OLD, "entropy_PKT": ENTROPY, "reference_logp_PKT": REFERENCE}
    expected |= {"old_value_PKT": ADVANTAGE} if has_value else {}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], padded(table)) for name, table in expected.items())


def test_a_policy_is_left_alone_beyond_its_distance_and_not_at_it() -> None:
    method = PPO(target_kl=0.25)
    assert [method.stops_early({"policy/approxkl": x}) for x in (0.2, 0.25, 0.3, -1.0)] == [False, False, True, False]
    assert not PPO().stops_early({"policy/approxkl": 9.0})


def test_the_merit_of_a_policy_is_its_first_score_less_its_kl() -> None:
    samples = [Sample("p", "r", 2, kl, {"first": score, "second": 9.0}) for kl, score in ((1.0, 2.0), (3.0, 6.0))]
    assert PPO(beta=0.25).merit(Measurement(samples)) == pytest.approx(4.0 - 0.25 * 2.0)
    assert PPO(beta=0.0).merit(Measurement(samples)) == pytest.approx(4.0)
    for sample in (Sample("p", "r", 2, 1.0, {}), Sample("p", "r", 2, None, {"first": 2.0})):
        assert PPO().merit(Measurement([sample])) is None
    assert PPO().merit(Measurement([])) is None
