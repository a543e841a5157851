"""Proximal policy optimisation from human feedback, and its critic-free relatives RLOO and GRPO.

The objective is ``E[r(x, y)] − β·KL(π‖π_ref) + γ·E[log π(demonstrations)]`` (Ouyang et al. 2022, eq. 2). Policy,
reference, reward and value are adapters on one base. Per token the reward is ``R_t = −β·kl_t``, the score of the
response is added at its last token; ``advantage`` says how advantages are made of it:

* ``gae``: with a value role (Schulman et al. 2016), PPO proper;
* ``rloo``: the score less the mean of the other responses to the prompt (Ahmadian et al. 2024);
* ``group``: less the mean of all, divided by their standard deviation (GRPO, Shao et al. 2024).

Details that decide whether it works are those of Huang et al. (2024, "The N+ implementation details of RLHF with PPO"):
logits of policy and reference are divided by the sampling temperature, dropout is off, the value begins at 0,
advantages are whitened over the whole roll-out, and minibatches are drawn anew in each pass.

Departures: losses are means over the tokens of a step also for ``group`` and ``rloo``. Value and policy are separate
adapters, so ``value_coef`` only sets how much of the common gradient norm each may take.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from align.errors import UserError
from align.method.base import Loss, Optimization, require_not_negative, require_positive
from align.method.online import Experience, OnlineMethod, RolloutPlan, State
from align.sampling.sampler import SamplingParams
from methods.ppo import health as ppo_health
from methods.ppo.advantages import (
    GroupScale,
    MissingEOS,
    gae,
    group,
    missing_eos,
    moments,
    overlong_penalty,
    place_score,
    rloo,
    whiten,
)
from methods.ppo.kl import AdaptiveKL, FixedKL, KLController, KLEstimator, per_token_kl
from methods.ppo.loss import (
    explained_variance,
    importance_weights,
    kl_loss,
    policy_loss,
    policy_metrics,
    value_loss,
    value_metrics,
)

if TYPE_CHECKING:
    from align.evaluation.measurement import Measurement
    from align.model.batch import Batch
    from align.model.policy import Policy
    from align.model.roles import Role


@dataclass(frozen=True, kw_only=True)
class PPO(OnlineMethod):
    """Reinforcement learning from human feedback: PPO with a value role, or RLOO and GRPO without one."""

    advantage: Literal["gae", "rloo", "group"] = "gae"
    """``gae`` trains a value role; ``rloo`` and ``group`` (GRPO) compare the responses to a prompt with each other."""
    responses: int = 1
    """Responses drawn for each prompt; at least 2 without a value role."""
    temperature: float = 0.7
    """Sampling temperature; log-probabilities are taken at the same one."""
    top_p: float = 1.0
    """Nucleus sampling."""
    max_new_tokens: int = 64
    """Longest response."""
    min_new_tokens: int = 0
    """Shortest response."""
    stop_strings: tuple[str, ...] = ()
    """Texts that end a response beside the end-of-turn token."""
    epochs: int = 4
    """Passes over a roll-out."""
    minibatches: int = 1
    """Optimiser steps of a pass."""
    clip: float = 0.2
    """ε: where the policy's ratio is clipped."""
    clip_high: float | None = None
    """Upper ε, where it differs."""
    dual_clip: float | None = None
    """Bound c > 1 on the loss of unlikely tokens with negative advantage."""
    beta: float = 0.05
    """Weight of the KL to the reference."""
    kl_in: Literal["reward", "loss"] = "reward"
    """Where the KL is paid: from the reward of each token, or as a term of the loss."""
    kl_estimator: KLEstimator = "k1"
    """``k1`` = log-ratio; ``k2`` = its square / 2; ``k3`` = never negative and unbiased."""
    kl_target: float | None = None
    """KL per response in nats that β is steered to; none: β is fixed."""
    kl_horizon: float = 10_000
    """Responses in which a steered β changes by about a fifth."""
    gamma: float = 1.0
    """Discount of later rewards."""
    lam: float = 0.95
    """λ of the advantage estimate: 1 is the plain return, 0 one step."""
    value_coef: float = 0.1
    """Weight of the value loss."""
    value_clip: float | None = 0.2
    """ε_v: how far a value may move in its loss."""
    value_init: Literal["zero", "reward"] = "zero"
    """The value begins as 0, or as a copy of the reward role."""
    value_warmup: int = 0
    """Roll-outs in which the value is trained alone."""
    missing_eos: MissingEOS = "replace"
    """What happens to the score of a response that was cut off: ``replace``, ``subtract`` or ``none``."""
    eos_score: float = -1.0
    """What replaces the score of such a response, or is added to it (then at most 0)."""
    overlong_buffer: int = 0
    """Tokens before the longest length over which a penalty rises from 0 to 1; 0: none."""
    score_clip: float | None = None
    """Scores are clipped to ±this."""
    normalize_scores: bool = False
    """Scores are divided by their running standard deviation."""
    whiten_rewards: bool = False
    """Rewards of tokens are scaled to variance 1, their mean kept."""
    whiten_advantages: bool = True
    """Advantages are shifted and scaled to mean 0 and variance 1 over the roll-out; ``gae`` only."""
    group_scale: GroupScale = "group"
    """What ``group`` divides by: the deviation within the ``group``, the ``batch``, or ``none``."""
    importance_cap: float | None = None
    """Correct for a sampler whose probabilities differ from the trainer's, by weights up to this."""
    entropy_coef: float = 0.0
    """Weight of an entropy bonus."""
    ptx_coef: float = 0.0
    """γ: weight of the loss on demonstrations that keeps other abilities (PPO-ptx)."""
    target_kl: float | None = None
    """Leave the rest of a roll-out unused once the policy is so far from its sampler, in nats per token."""

    optimization: ClassVar[Optimization] = Optimization(
        learning_rate=3e-5, full_learning_rate=3e-6, epochs=1, batch_size=64, warmup=0.0, schedule="linear"
    )
    headline: ClassVar[str] = "objective/scores"

    def check(self) -> None:
        """Ranges, and settings that contradict each other."""
        require_positive("PPO", temperature=self.temperature, clip=self.clip, kl_horizon=self.kl_horizon)
        self.sampling()
        for name in ("responses", "epochs", "minibatches"):
            if getattr(self, name) < 1:
                raise UserError(f"method.{name}={getattr(self, name)}: must be at least 1.")
        counted = ("beta", "value_coef", "value_warmup", "entropy_coef", "ptx_coef", "overlong_buffer")
        require_not_negative(**{name: getattr(self, name) for name in counted})
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"method.{name}={getattr(self, name)}: must be from 0 to 1.")
        for name in ("clip_high", "value_clip", "score_clip", "target_kl", "kl_target"):
            if getattr(self, name) is not None:
                require_positive("PPO", **{name: getattr(self, name)})
        if not self.clip < 1:
            raise UserError(f"method.clip={self.clip}: must be below 1.")
        for name in ("dual_clip", "importance_cap"):
            bound = getattr(self, name)
            if bound is not None and not bound > 1:
                raise UserError(f"method.{name}={bound}: must be above 1.")
        if self.advantage != "gae" and self.responses < 2:
            raise UserError(
                f"method.responses={self.responses}: advantage={self.advantage} compares the responses to a prompt; "
                "draw at least 2."
            )
        if self.missing_eos == "subtract" and self.eos_score > 0:
            raise UserError(f"method.eos_score={self.eos_score} would reward a missing end; give at most 0.")
        if self.kl_target is not None and self.beta == 0:
            raise UserError("method.kl_target steers method.beta, which must then begin above 0.")
        if self.overlong_buffer >= self.max_new_tokens:
            raise UserError(f"method.overlong_buffer={self.overlong_buffer}: must be below method.max_new_tokens.")

    # What it needs

    @property
    def trains(self) -> tuple[Role, ...]:
        """The policy, and the value where advantages are estimated with one."""
        return ("policy", "value") if self.advantage == "gae" else ("policy",)

    @property
    def frozen(self) -> tuple[Role, ...]:
        """The reference."""
        return ("reference",)

    @property
    def rollout(self) -> RolloutPlan:
        """Sampling, passes and minibatches."""
        return RolloutPlan(
            responses=self.responses,
            sampling=self.sampling(),
            epochs=self.epochs,
            minibatches=self.minibatches,
        )

    def sampling(self) -> SamplingParams:
        """How responses are drawn."""
        return SamplingParams(
            temperature=self.temperature,
            top_p=self.top_p,
            max_new_tokens=self.max_new_tokens,
            min_new_tokens=self.min_new_tokens,
            stop_strings=self.stop_strings,
        )

    @property
    def mixing(self) -> float:
        """γ of PPO-ptx."""
        return self.ptx_coef

    def begin(self, policy: Policy) -> None:
        """Copy the reward role into the value role where that was asked for."""
        if self.advantage != "gae" or self.value_init == "zero":
            return
        if "reward" not in policy.roles.names:
            raise UserError("method.value_init=reward: there is no reward role to copy; use zero with a scorer.")
        policy.roles.copy("reward", "value")

    # Roll-outs

    def ask_roles(self, policy: Policy, batch: Batch) -> Batch:
        """Add old and reference log-probabilities, entropies, and values."""
        with policy.use("policy"):
            ours = policy.logprobs(batch, temperature=self.temperature, entropy=True)
        with policy.use("reference"):
            theirs = policy.logprobs(batch, temperature=self.temperature)
        assert ours.entropy_PKT is not None
        columns = {
            "old_logp_PKT": ours.logp_PKT,
            "entropy_PKT": ours.entropy_PKT,
            "reference_logp_PKT": theirs.logp_PKT,
        }
        if self.advantage == "gae":
            with policy.use("value"):
                columns["old_value_PKT"] = policy.values(batch)
        return batch.with_columns(**columns)

    def compute_advantages(self, batch: Batch, state: State, total: Callable[[Tensor], Tensor]) -> Experience:
        """Rewards of tokens, advantages and returns of a roll-out, and what is measured of it."""
        mask_PKT, valid_PK = batch.mask_PKT, batch.valid_PK
        score_PK, scale_state = self._scores(batch, state, total)
        controller = self._controller(state)
        kl_PKT = per_token_kl(batch["old_logp_PKT"], batch["reference_logp_PKT"], mask_PKT, self.kl_estimator)
        penalty_PKT = -controller.beta * kl_PKT if self.kl_in == "reward" else torch.zeros_like(kl_PKT)
        columns: dict[str, Tensor] = {}
        metrics: dict[str, Any] = {}
        if self.advantage == "gae":
            reward_PKT = place_score(score_PK, mask_PKT) + penalty_PKT
            if self.whiten_rewards:
                statistics = total(moments(reward_PKT, mask_PKT))
                reward_PKT = whiten(reward_PKT, mask_PKT, statistics, shift_mean=False)
            value_PKT = batch["old_value_PKT"]
            advantage_PKT, return_PKT = gae(reward_PKT, value_PKT, mask_PKT, gamma=self.gamma, lam=self.lam)
            columns["return_PKT"] = return_PKT
            statistics = total(moments(return_PKT, mask_PKT))
            metrics |= explained_variance(value_PKT, return_PKT, mask_PKT, statistics)
            if self.whiten_advantages:
                statistics = total(moments(advantage_PKT, mask_PKT))
                advantage_PKT = whiten(advantage_PKT, mask_PKT, statistics)
        else:
            outcome_PK = score_PK + penalty_PKT.sum(-1)
            if self.advantage == "rloo":
                advantage_PK = rloo(outcome_PK, valid_PK)
            else:
                statistics = total(moments(outcome_PK, valid_PK))
                advantage_PK = group(outcome_PK, valid_PK, scale=self.group_scale, statistics=statistics)
            advantage_PKT = torch.where(mask_PKT, advantage_PK[..., None], 0)
        columns["advantage_PKT"] = advantage_PKT
        columns["beta_P"] = torch.full((batch.P,), controller.beta)
        columns["warming_P"] = torch.full((batch.P,), float(state.get("rollouts", 0) < self.value_warmup))
        log_ratio_PKT = torch.where(mask_PKT, batch["old_logp_PKT"] - batch["reference_logp_PKT"], 0)
        metrics |= self._objective(batch, score_PK, log_ratio_PKT, -controller.beta * kl_PKT.sum(), controller.beta)
        measured = total(torch.tensor([float(log_ratio_PKT.sum()), float(valid_PK.sum())], dtype=torch.float64))
        controller.update(float(measured[0] / measured[1]), int(measured[1]))
        after = {**scale_state, **controller.state_dict(), "rollouts": state.get("rollouts", 0) + 1}
        return Experience(batch.with_columns(**columns), metrics, after)

    def _scores(self, batch: Batch, state: State, total: Callable[[Tensor], Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Scores after normalising, clipping, and what is said of responses that are too long."""
        score_PK, valid_PK = batch["score_PK"], batch.valid_PK
        kept: dict[str, float] = {}
        if self.normalize_scores:
            seen = total(moments(score_PK, valid_PK))
            known = torch.tensor([state.get(name, 0.0) for name in _MOMENTS], dtype=torch.float64)
            count, mean, squares = (seen + known).tolist()
            kept = dict(zip(_MOMENTS, (count, mean, squares), strict=True))
            variance = squares / count - (mean / count) ** 2
            score_PK = score_PK / max(variance, 1e-8) ** 0.5
        if self.score_clip is not None:
            score_PK = score_PK.clamp(-self.score_clip, self.score_clip)
        score_PK = missing_eos(
            score_PK,
            batch["ended_PK"],
            how=self.missing_eos,
            value=self.eos_score if self.missing_eos == "replace" else -self.eos_score,
        )
        if self.overlong_buffer:
            score_PK = score_PK + overlong_penalty(
                batch.length_PK, max_tokens=self.max_new_tokens, buffer=self.overlong_buffer
            )
        return torch.where(valid_PK, score_PK, 0), kept

    def _controller(self, state: State) -> KLController:
        if self.kl_target is None:
            return FixedKL(self.beta)
        controller = AdaptiveKL(self.beta, target=self.kl_target, horizon=self.kl_horizon)
        if "beta" in state:
            controller.load_state_dict(state)
        return controller

    def _objective(
        self, batch: Batch, score_PK: Tensor, log_ratio_PKT: Tensor, paid: Tensor, beta: float
    ) -> dict[str, Any]:
        """What is measured of a roll-out, under TRL's names; KL and entropy are sums over a response, in nats."""
        responses = float(batch.valid_PK.sum())
        return {
            "objective/kl": (log_ratio_PKT.sum(), responses),
            "objective/entropy": ((batch["entropy_PKT"] * batch.mask_PKT).sum(), responses),
            "objective/scores": (batch["score_PK"][batch.valid_PK].sum(), responses),
            "objective/non_score_reward": (paid, responses),
            "objective/rlhf_reward": (score_PK[batch.valid_PK].sum() + paid, responses),
            "objective/beta": (beta * responses, responses),
        }

    # Updates

    def weight(self, batch: Batch) -> float:
        """Response tokens."""
        return float(batch.tokens)

    def loss(self, policy: Policy, batch: Batch) -> Loss:
        """The loss of the role in use: :func:`methods.ppo.loss.policy_loss` or :func:`~methods.ppo.loss.value_loss`."""
        columns = {name: column.to(policy.device) for name, column in batch.columns.items()}
        mask_PKT = batch.mask_PKT.to(policy.device)
        if policy.role == "value":
            return self._value_loss(policy, batch, columns, mask_PKT)
        return self._policy_loss(policy, batch, columns, mask_PKT)

    def _policy_loss(self, policy: Policy, batch: Batch, columns: Mapping[str, Tensor], mask_PKT: Tensor) -> Loss:
        asked = policy.logprobs(batch, temperature=self.temperature, entropy=self.entropy_coef > 0)
        logp_PKT, old_PKT = asked.logp_PKT, columns["old_logp_PKT"]
        clips = {"clip_low": self.clip, "clip_high": self.clip if self.clip_high is None else self.clip_high}
        weights_PKT = None
        if self.importance_cap is not None:
            weights_PKT = importance_weights(old_PKT, columns["sampler_logp_PKT"], mask_PKT, cap=self.importance_cap)
        advantage_PKT = columns["advantage_PKT"]
        loss_PKT = policy_loss(
            logp_PKT,
            old_PKT,
            advantage_PKT,
            mask_PKT,
            **clips,
            dual_clip=self.dual_clip,
            importance_PKT=weights_PKT,
        )
        surrogate = loss_PKT.detach().sum()
        if self.kl_in == "loss" and self.beta > 0:
            divergence_PKT = self._divergence(logp_PKT, old_PKT, columns["reference_logp_PKT"], mask_PKT)
            loss_PKT = loss_PKT + columns["beta_P"][:, None, None] * divergence_PKT
        if asked.entropy_PKT is not None:
            loss_PKT = loss_PKT - self.entropy_coef * asked.entropy_PKT
        loss = (loss_PKT * (1 - columns["warming_P"])[:, None, None]).sum()
        tokens = self.weight(batch)
        metrics: dict[str, Any] = {
            "loss/policy": (surrogate, tokens),
            "loss": (loss.detach(), tokens),
            "policy/entropy": ((columns["entropy_PKT"] * mask_PKT).sum(), tokens),
            **policy_metrics(logp_PKT, old_PKT, advantage_PKT, mask_PKT, **clips),
        }
        return Loss(sums={"policy": loss}, metrics=metrics)

    def _divergence(self, logp_PKT: Tensor, old_PKT: Tensor, reference_PKT: Tensor, mask_PKT: Tensor) -> Tensor:
        """The KL as a term of the loss; the gradient of ``k2`` is right without the ratio, that of the others with."""
        if self.kl_estimator == "k2":
            return per_token_kl(logp_PKT, reference_PKT, mask_PKT, "k2")
        return kl_loss(logp_PKT, old_PKT, reference_PKT, mask_PKT, self.kl_estimator)

    def _value_loss(self, policy: Policy, batch: Batch, columns: Mapping[str, Tensor], mask_PKT: Tensor) -> Loss:
        value_PKT, old_PKT, return_PKT = policy.values(batch), columns["old_value_PKT"], columns["return_PKT"]
        loss = value_loss(value_PKT, old_PKT, return_PKT, mask_PKT, clip=self.value_clip).sum()
        metrics: dict[str, Any] = {"loss/value": (loss.detach(), self.weight(batch))}
        if self.value_clip is not None:
            metrics |= value_metrics(value_PKT, old_PKT, return_PKT, mask_PKT, clip=self.value_clip)
        return Loss(sums={"value": self.value_coef * loss}, metrics=metrics)

    def stops_early(self, metrics: Mapping[str, float]) -> bool:
        """Whether the approximate KL per token to the policy that drew has passed its bound."""
        return self.target_kl is not None and metrics["policy/approxkl"] > self.target_kl

    def merit(self, measurement: Measurement) -> float | None:
        """The objective on held-out prompts: the mean of the first scorer less ``β·KL``."""
        means = measurement.metrics()
        if not measurement.samples or not measurement.samples[0].scores or "kl" not in means:
            return None
        return means[next(iter(measurement.samples[0].scores))] - self.beta * means["kl"]

    def warnings(self, rollouts: Sequence[Mapping[str, float]], evaluations: Sequence[Measurement]) -> dict[str, str]:
        """See :mod:`methods.ppo.health`."""
        return ppo_health.warnings(rollouts, evaluations, trains_value=self.advantage == "gae")


_MOMENTS = ("score_count", "score_sum", "score_squares")
