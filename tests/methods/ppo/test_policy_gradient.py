"""The common part of PPO, RLOO and GRPO: each setting reaches its place, and every metric has its denominator."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from align.errors import UserError
from align.evaluation.measurement import Measurement, Sample
from align.method.base import Loss
from align.model.batch import Batch
from align.model.forward import Logprobs
from methods import GRPO, PPO, RLOO

OLD = [[[-1.0, -0.5, -2.0], [-1.5, -0.25]], [[-0.75], [-1.25, -1.0]]]  # two prompts, two responses each
REFERENCE = [[[-1.2, -0.4, -1.5], [-1.0, -0.5]], [[-0.5], [-1.25, -2.0]]]
MOVED = [[[-0.7, -0.6, -1.9], [-1.0, -0.5]], [[-0.5], [-1.5, -0.9]]]
ENTROPY = [[[0.5, 0.25, 1.0], [2.0, 0.125]], [[0.75], [1.5, 0.375]]]
ADVANTAGE = [[[1.0, 2.0, -1.0], [0.5, -0.5]], [[-2.0], [1.5, 1.0]]]
SCORES, ENDED = [[1.0, 3.0], [-2.0, 0.5]], [[True, False], [True, True]]
FLAT_OLD, FLAT_MOVED, FLAT_ENTROPY, FLAT_ADVANTAGE, FLAT_REFERENCE = (
    [x for row in table for response in row for x in response] for table in (OLD, MOVED, ENTROPY, ADVANTAGE, REFERENCE)
)


def padded(table: list[list[list[float]]], fill: float = 0.0) -> Tensor:
    out = torch.full((2, 2, 3), fill)
    for p, row in enumerate(table):
        for k, values in enumerate(row):
            out[p, k, : len(values)] = torch.tensor(values)
    return out


def rollout(**changed: Tensor) -> Batch:
    """A roll-out after its roles were asked; where no token is, there are 9s that must not count."""
    batch = Batch(((1, 2), (1,)), tuple(tuple([3] * len(r) for r in row) for row in OLD), (0, 1))
    columns = {
        "old_logp_PKT": padded(OLD, 9.0),
        "reference_logp_PKT": padded(REFERENCE, -9.0),
        "entropy_PKT": padded(ENTROPY, 9.0),
        "old_value_PKT": padded(ADVANTAGE, 9.0),
        "score_PK": torch.tensor(SCORES),
        "ended_PK": torch.tensor(ENDED),
    }
    return batch.with_columns(**{**columns, **changed})


def experienced(method: Any, state: Any = None, **changed: Tensor) -> Any:
    return method.compute_advantages(rollout(**changed), state or {}, lambda x: x)


def means(metrics: Any) -> dict[str, float]:
    return {name: float(total) / float(weight) for name, (total, weight) in metrics.items()}


class Moved:
    """The policy some steps later."""

    device, role = "cpu", "policy"

    def __init__(self) -> None:
        self.logp_PKT = padded(MOVED, 9.0).requires_grad_()
        self.asked: list[tuple[float, bool]] = []

    def logprobs(self, _: Batch, *, temperature: float = 1.0, entropy: bool = False) -> Logprobs:
        self.asked.append((temperature, entropy))
        return Logprobs(self.logp_PKT, padded(ENTROPY) if entropy else None)


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


class TestScores:
    def outcome(self, method: Any, state: Any = None, **changed: Tensor) -> Any:
        experience = experienced(method, state, **changed)
        return experience, experience.batch["return_PKT"]

    def test_normalised_by_the_deviation_of_all_scores_so_far(self) -> None:
        """The scores 1, 3, −2, .5 here and 5, −1 before them: Σ 6.5, Σ² 40.25 of 6; the mean is not taken off."""
        method = PPO(normalize_scores=True, missing_eos="none", beta=0.0, lam=1.0)
        state = {"score_count": 2.0, "score_sum": 4.0, "score_squares": 26.0}
        experience, returned = self.outcome(method, state)
        deviation = math.sqrt(40.25 / 6 - (6.5 / 6) ** 2)
        assert returned[:, :, 0].flatten().tolist() == pytest.approx([s / deviation for s in (1, 3, -2, 0.5)], rel=1e-5)
        kept = {name: experience.state[name] for name in state}
        assert kept == {"score_count": 6.0, "score_sum": 6.5, "score_squares": 40.25}

    def test_equal_scores_are_not_divided_by_nothing(self) -> None:
        method = PPO(normalize_scores=True, beta=0.0, lam=1.0, missing_eos="none")
        _, returned = self.outcome(method, score_PK=torch.full((2, 2), 2.0))
        assert returned[0, 0, 0].item() == pytest.approx(2.0 / 1e-4)

    def test_the_clip_comes_after_the_division(self) -> None:
        method = PPO(normalize_scores=True, score_clip=0.4, beta=0.0, lam=1.0, missing_eos="none")
        _, returned = self.outcome(method)
        deviation = math.sqrt(14.25 / 4 - (2.5 / 4) ** 2)
        expected = [max(-0.4, min(0.4, s / deviation)) for s in (1, 3, -2, 0.5)]
        assert returned[:, :, 0].flatten().tolist() == pytest.approx(expected, rel=1e-5)

    def test_too_long_counts_from_the_longest_length(self) -> None:
        """Of at most 4 tokens the last 2 cost: one of 3 has half of it."""
        method = PPO(overlong_buffer=2, max_new_tokens=4, beta=0.0, lam=1.0, missing_eos="none")
        _, returned = self.outcome(method)
        assert returned[:, :, 0].flatten().tolist() == pytest.approx([0.5, 3.0, -2.0, 0.5])

    @pytest.mark.parametrize(
        ("settings", "cut_off"),
        [
            ({}, -1.0),
            ({"eos_score": -2.5}, -2.5),
            ({"missing_eos": "subtract", "eos_score": -0.5}, 2.5),
            ({"missing_eos": "none"}, 3.0),
        ],
    )
    def test_only_the_response_that_was_cut_off_pays(self, settings: dict[str, Any], cut_off: float) -> None:
        _, returned = self.outcome(PPO(beta=0.0, lam=1.0, **settings))
        assert returned[:, :, 0].flatten().tolist() == pytest.approx([1.0, cut_off, -2.0, 0.5])


class TestObjective:
    X = (0.2, -0.1, -0.5, -0.5, 0.25, -0.25, 0.0, 1.0)  # log-ratios of the eight tokens to the reference

    @pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
    def test_every_metric_is_a_mean_over_responses(self, estimator: Any) -> None:
        """The KL that is logged is k1's whatever is paid for."""
        method = PPO(beta=0.5, kl_estimator=estimator)
        k = {"k1": lambda x: x, "k2": lambda x: x * x / 2, "k3": lambda x: math.exp(-x) - 1 + x}[estimator]
        paid = -0.5 * sum(map(k, self.X)) / 4
        scores = (1 - 1 - 2 + 0.5) / 4
        found = means(experienced(method).metrics)
        assert {name: value for name, value in found.items() if name.startswith("objective/")} == pytest.approx(
            {
                "objective/kl": sum(self.X) / 4,
                "objective/entropy": sum(FLAT_ENTROPY) / 4,
                "objective/scores": scores,
                "objective/non_score_reward": paid,
                "objective/rlhf_reward": scores + paid,
                "objective/beta": 0.5,
            },
            rel=1e-5,
            abs=1e-6,
        )

    @pytest.mark.parametrize("method", [RLOO(responses=2), GRPO(responses=2), PPO(responses=2, advantage="group")])
    def test_prompts_whose_responses_tie_are_counted(self, method: Any) -> None:
        """After shaping: all score 1, but one response to the first prompt is cut off."""
        assert means(experienced(method, score_PK=torch.ones(2, 2)).metrics)["objective/ties"] == 0.5
        assert means(experienced(method).metrics)["objective/ties"] == 0
        assert "objective/ties" not in means(experienced(PPO()).metrics)

    def test_the_weight_is_steered_by_the_kl_of_a_response(self) -> None:
        """.025 nats a response are a quarter above the target: the error is clipped at .2; 4 of 20 responses."""
        method = PPO(kl_target=0.02, kl_horizon=20.0, beta=0.5)
        first = experienced(method)
        assert first.state["beta"] == pytest.approx(0.5 * (1 + 0.2 * 4 / 20))
        assert first.batch["beta_P"].tolist() == [0.5, 0.5]
        second = experienced(method, first.state)
        assert second.batch["beta_P"].tolist() == pytest.approx([first.state["beta"]] * 2)
        assert means(second.metrics)["objective/beta"] == pytest.approx(first.state["beta"])
        assert [first.state["rollouts"], second.state["rollouts"]] == [1, 2]

    @pytest.mark.parametrize("method", [RLOO(responses=2, kl_in="loss"), GRPO(responses=2, group_scale="none")])
    def test_what_is_in_the_loss_is_not_in_the_reward(self, method: Any) -> None:
        free = dataclasses.replace(method, beta=0.0, kl_in=type(method).kl_in, kl_estimator=type(method).kl_estimator)
        torch.testing.assert_close(experienced(method).batch["advantage_PKT"], experienced(free).batch["advantage_PKT"])
        paid = dataclasses.replace(method, kl_in="reward", beta=0.5)
        assert (experienced(paid).batch["advantage_PKT"] - experienced(free).batch["advantage_PKT"]).abs().max() > 0.01


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


SAMPLING: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.75,
    "max_new_tokens": 9,
    "min_new_tokens": 3,
    "stop_strings": ("END",),
}


@pytest.mark.parametrize("cls", [PPO, RLOO, GRPO])
def test_every_setting_of_a_roll_out_reaches_its_plan(cls: Any) -> None:
    plan = cls(responses=5, epochs=3, minibatches=2, **SAMPLING).rollout
    assert (plan.responses, plan.epochs, plan.minibatches, plan.updates) == (5, 3, 2, 6)
    assert {name: getattr(plan.sampling, name) for name in SAMPLING} == SAMPLING
    assert (plan.sampling.top_k, plan.sampling.diversity_penalty) == (0, 0.0)
    assert cls(ptx_coef=0.25).mixing == 0.25
    assert cls().mixing == 0
    assert cls().frozen == ("reference",)
    assert cls().needs_reward


INF, NAN = math.inf, math.nan
REFUSED: list[tuple[str, tuple[float, ...]]] = [
    ("temperature", (0.0, -1.0)),
    ("top_p", (0.0, 1.5)),
    ("max_new_tokens", (0,)),
    ("min_new_tokens", (-1, 65)),
    ("responses", (0,)),
    ("epochs", (0,)),
    ("minibatches", (0,)),
    ("clip", (0.0, 1.0, NAN)),
    ("clip_high", (0.0, -0.1, INF)),
    ("dual_clip", (1.0, 0.5, NAN)),
    ("beta", (-0.1, NAN, INF)),
    ("kl_target", (0.0, -1.0)),
    ("kl_horizon", (0.0, NAN)),
    ("overlong_buffer", (-1, 64)),
    ("score_clip", (0.0, -1.0)),
    ("importance_cap", (1.0, 0.5)),
    ("entropy_coef", (-0.1, NAN)),
    ("ptx_coef", (-0.1, INF)),
    ("target_kl", (0.0, -1.0)),
]
OF_VALUE: list[tuple[str, tuple[float, ...]]] = [
    ("gamma", (-0.1, 1.1, NAN)),
    ("lam", (-0.1, 1.1, NAN)),
    ("value_coef", (-0.1, INF)),
    ("value_clip", (0.0, -1.0)),
    ("value_warmup", (-1,)),
]


@pytest.mark.parametrize(
    ("cls", "name", "value"),
    [
        (cls, name, value)
        for cls in (PPO, RLOO, GRPO)
        for name, values in [*REFUSED, *(OF_VALUE if cls is PPO else [])]
        for value in values
    ],
)
def test_values_out_of_range_are_refused_by_name(cls: Any, name: str, value: float) -> None:
    more: dict[str, Any] = {"kl_target": 1.0} if name == "kl_horizon" else {}
    with pytest.raises(UserError, match=name):
        cls(**{"epochs": 2, **more, name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("gamma", x) for x in (0.0, 1.0)),
        *(("lam", x) for x in (0.0, 1.0)),
        ("value_coef", 0.0),
        ("beta", 0.0),
        ("overlong_buffer", 63),
        ("dual_clip", 1.01),
        ("clip", 0.99),
        ("clip_high", 5.0),
        ("target_kl", 0.01),
    ],
)
def test_values_at_the_ends_of_their_range_are_taken(name: str, value: float) -> None:
    assert getattr(PPO(**{name: value}), name) == value  # pyright: ignore[reportArgumentType]


def test_subtracting_may_cost_nothing() -> None:
    assert PPO(missing_eos="subtract", eos_score=0.0).eos_score == 0


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
