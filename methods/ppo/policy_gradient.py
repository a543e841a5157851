"""The common part of PPO, RLOO and GRPO: roll-outs, shaped scores, the KL to the reference, the clipped policy loss.

The objective is ``E[r(x, y)] − β·KL(π‖π_ref) + γ·E[log π(demonstrations)]`` (Ouyang et al. 2022, eq. 2), and its
gradient is estimated on responses that the policy has drawn::

    draw K responses y to each prompt at temperature τ; score them; shape the scores     # sampler, scorer, _scores
    ask the policy for logp_old and the reference for logp_ref, both at temperature τ    # ask_roles
    penalty_t = −β·k(logp_old − logp_ref)_t, or 0 where the KL is a term of the loss     # compute_advantages
    A = advantages(score, penalty)                                                       # the one thing that differs
    for each pass, for each minibatch, drawn anew in each pass:
        ρ = exp(logp − logp_old)
        loss = mean over tokens of max(−A·ρ, −A·clip(ρ, 1 − ε, 1 + ε)) (+ β·KL) (+ γ·loss on demonstrations)

Details that decide whether it works are those of Huang et al. (2024, "The N+ implementation details of RLHF with PPO"):
logits of policy and reference are divided by the sampling temperature, dropout is off, and minibatches are drawn anew
in each pass.

``reduction`` says what "mean" is: over the tokens of a step (DAPO, TRL's ``bnpo``), over its responses after each one's
own mean (GRPO's paper), or over its responses after each one's sum over ``max_new_tokens`` (Dr. GRPO).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from align.errors import UserError
from align.method.base import (
    Experience,
    Loss,
    Metrics,
    Optimization,
    RolloutPlan,
    State,
    require_effect,
    require_not_negative,
    require_positive,
)
from methods.from_rollouts import RolloutMethod
from methods.ppo.advantages import moments, spread
from methods.ppo.kl import AdaptiveKL, FixedKL, KLController, KLEstimator, per_token_kl
from methods.ppo.loss import importance_weights, kl_loss, policy_loss, policy_metrics
from reward.verifiers.overlong import overlong_penalty

if TYPE_CHECKING:
    from torch import Tensor

    from align.evaluation.measurement import Measurement
    from align.model.batch import Batch
    from align.model.policy import Policy

__all__ = ["PolicyGradient", "Rewards"]

Total = Callable[["Tensor"], "Tensor"]
"""Sums a tensor over all ranks."""
KLPlace = Literal["reward", "loss"]
Reduction = Literal["token", "response", "constant"]


@dataclass(frozen=True)
class Rewards:
    """The rewards of a roll-out, from which advantages are computed."""

    score_PK: Tensor
    """Shaped scores, 0 where there is no response."""
    penalty_PKT: Tensor
    """``−β·kl`` of each token; 0 where the KL is a term of the loss."""

    @property
    def outcome_PK(self) -> Tensor:
        """Score and KL penalty of each whole response."""
        return self.score_PK + self.penalty_PKT.sum(-1)


@dataclass(frozen=True, kw_only=True)
class PolicyGradient(RolloutMethod):
    """A clipped policy gradient on the policy's own responses; subclasses compute the advantages."""

    responses: int = 1
    """Responses drawn for each prompt; at least 2 without a value role."""
    temperature: float = 0.7
    """Sampling temperature; log-probabilities are taken at the same one."""
    reduction: Reduction = "token"
    """Mean over ``token``s, over each ``response``'s mean, or over responses of their sum / longest (``constant``)."""
    epochs: int = 4
    """Passes over a roll-out."""
    clip: float = 0.2
    """ε: where the policy's ratio is clipped."""
    clip_high: float | None = None
    """Upper ε, where it differs."""
    dual_clip: float | None = None
    """Bound c > 1 on the loss of unlikely tokens with negative advantage."""
    beta: float = 0.05
    """Weight of the KL to the reference."""
    kl_in: KLPlace = "reward"
    """``reward``: the KL is subtracted from the reward of each token; ``loss``: it is a term of the loss."""
    kl_estimator: KLEstimator = "k1"
    """``k1`` = log-ratio; ``k2`` = its square / 2; ``k3`` = never negative and unbiased."""
    kl_target: float | None = None
    """KL per response, in nats, that β is steered to; none: β is fixed."""
    kl_horizon: float = 10_000
    """Responses in which a steered β changes by about a fifth."""
    overlong_buffer: int | None = 0
    """Last tokens of the longest length, over which a penalty rises to 1; 0: no penalty; none: a fifth."""
    score_clip: float | None = None
    """Clip scores to ± this."""
    normalize_scores: bool = False
    """Divide scores by their running standard deviation."""
    importance_cap: float | None = None
    """Bound on the importance weights that correct for a sampler of other probabilities; none: off."""
    entropy_coef: float = 0.0
    """Weight of an entropy bonus."""
    ptx_coef: float = 0.0
    """γ: weight of the loss on demonstrations that keeps other abilities (PPO-ptx)."""
    target_kl: float | None = None
    """Skip the rest of a roll-out once the policy is this far from the one that drew it, nats per token."""

    optimization: ClassVar[Optimization] = Optimization(
        learning_rate=3e-5, full_learning_rate=3e-6, epochs=1, batch_size=64, warmup=0.0, schedule="linear"
    )
    headline: ClassVar[str] = "objective/scores"
    tie: ClassVar[str | None] = "beta"

    def check(self) -> None:
        """Ranges, and settings that contradict each other."""
        name_of_method = type(self).__name__
        super().check()
        require_positive(name_of_method, clip=self.clip, kl_horizon=self.kl_horizon)
        if self.epochs < 1:
            raise UserError(f"method.epochs={self.epochs}: must be at least 1.")
        require_not_negative(**{name: getattr(self, name) for name in ("beta", "entropy_coef", "ptx_coef")})
        require_not_negative(overlong_buffer=self.buffer)
        for name in ("clip_high", "score_clip", "target_kl", "kl_target"):
            if getattr(self, name) is not None:
                require_positive(name_of_method, **{name: getattr(self, name)})
        if not self.clip < 1:
            raise UserError(f"method.clip={self.clip}: must be below 1.")
        for name in ("dual_clip", "importance_cap"):
            bound = getattr(self, name)
            if bound is not None and not bound > 1:
                raise UserError(f"method.{name}={bound}: must be above 1.")
        if self.kl_target is not None and self.beta == 0:
            raise UserError("method.kl_target steers method.beta, which must then begin above 0.")
        if self.buffer >= self.max_new_tokens:
            raise UserError(f"method.overlong_buffer={self.overlong_buffer}: must be below method.max_new_tokens.")
        once = self.epochs * self.minibatches == 1
        require_effect(self, not once, "a second update of a roll-out (method.epochs, method.minibatches)", "target_kl")
        require_effect(self, self.beta > 0, "method.beta above 0", "kl_in", "kl_estimator")
        require_effect(self, self.kl_target is not None, "method.kl_target", "kl_horizon")
        if self.compares and self.responses < 2:
            raise UserError(
                f"method.responses={self.responses}: without a value role the responses to a prompt are compared with "
                "each other; draw at least 2."
            )

    @property
    def compares(self) -> bool:
        """True if the responses to a prompt are compared with each other."""
        return True

    @property
    def buffer(self) -> int:
        """Tokens of the overlong buffer."""
        return self.max_new_tokens // 5 if self.overlong_buffer is None else self.overlong_buffer

    @property
    def rollout(self) -> RolloutPlan:
        """Sampling, passes and minibatches."""
        return replace(super().rollout, epochs=self.epochs)

    @property
    def mixing(self) -> float:
        """γ of PPO-ptx."""
        return self.ptx_coef

    # Roll-outs

    @abstractmethod
    def advantages(self, batch: Batch, rewards: Rewards, total: Total) -> tuple[dict[str, Tensor], Metrics]:
        """Return ``advantage_PKT`` and whatever other columns the loss needs, and metrics as (sum, weight)."""

    def ask_roles(self, policy: Policy, batch: Batch) -> Batch:
        """Add old and reference log-probabilities, and entropies."""
        with policy.use("policy"):
            ours = policy.logprobs(batch, temperature=self.temperature, entropy=True)
        with policy.use("reference"):
            theirs = policy.logprobs(batch, temperature=self.temperature)
        assert ours.entropy_PKT is not None
        return batch.with_columns(
            old_logp_PKT=ours.logp_PKT,
            entropy_PKT=ours.entropy_PKT,
            reference_logp_PKT=theirs.logp_PKT,
        )

    def compute_advantages(self, batch: Batch, state: State, total: Total) -> Experience:
        """Shape the scores, weigh the KL, and compute advantages and metrics of the roll-out."""
        mask_PKT, valid_PK = batch.mask_PKT, batch.valid_PK
        score_PK, scale_state = self._scores(batch, state, total)
        controller = self._controller(state)
        kl_PKT = per_token_kl(batch["old_logp_PKT"], batch["reference_logp_PKT"], mask_PKT, self.kl_estimator)
        penalty_PKT = -controller.beta * kl_PKT if self.kl_in == "reward" else torch.zeros_like(kl_PKT)
        columns, measured = self.advantages(batch, Rewards(score_PK, penalty_PKT), total)
        if self.compares:
            ties = float((spread(score_PK, valid_PK) == 0).sum())
            measured = {**measured, "objective/ties": (torch.tensor(ties), float(batch.P))}
        columns["beta_P"] = torch.full((batch.P,), controller.beta)
        log_ratio_PKT = torch.where(mask_PKT, batch["old_logp_PKT"] - batch["reference_logp_PKT"], 0)
        objective = _objective(batch, score_PK, log_ratio_PKT, -controller.beta * kl_PKT.sum(), controller.beta)
        kl, responses = total(torch.tensor([log_ratio_PKT.sum(), valid_PK.sum()], dtype=torch.float64)).tolist()
        controller.update(kl / responses, int(responses))
        after = {**scale_state, **controller.state_dict(), "rollouts": state.get("rollouts", 0) + 1}
        return Experience(batch.with_columns(**columns), {**measured, **objective}, after)

    def _scores(self, batch: Batch, state: State, total: Total) -> tuple[Tensor, dict[str, float]]:
        """Normalise and clip the scores, and penalise responses that are too long or cut off; also the new moments."""
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
        score_PK = self.score_ends(score_PK, batch["ended_PK"])
        if self.buffer:
            score_PK = score_PK + overlong_penalty(batch.length_PK, max_tokens=self.max_new_tokens, buffer=self.buffer)
        return torch.where(valid_PK, score_PK, 0), kept

    def _controller(self, state: State) -> KLController:
        if self.kl_target is None:
            return FixedKL(self.beta)
        controller = AdaptiveKL(self.beta, target=self.kl_target, horizon=self.kl_horizon)
        if "beta" in state:
            controller.load_state_dict(state)
        return controller

    # Updates

    def weight(self, batch: Batch) -> float:
        """Response tokens, or responses, by the reduction."""
        return float(batch.tokens if self.reduction == "token" else batch.valid_PK.sum())

    def reduced(self, loss_PKT: Tensor, batch: Batch) -> Tensor:
        """The sum of a loss per token that, over :meth:`weight`, is the mean of the reduction; the batch is with it."""
        if self.reduction == "response":
            return (loss_PKT.sum(-1) / batch.length_PK.clamp(min=1)).sum()
        return loss_PKT.sum() / (self.max_new_tokens if self.reduction == "constant" else 1)

    @property
    def clips(self) -> dict[str, float]:
        """Where the ratio is clipped: ``clip_low`` below 1, ``clip_high`` above it."""
        return {"clip_low": self.clip, "clip_high": self.clip if self.clip_high is None else self.clip_high}

    def surrogate(self, *arguments: Tensor, importance_PKT: Tensor | None) -> Tensor:
        """The loss of each token; ``arguments`` are those of :func:`~methods.ppo.loss.policy_loss`."""
        return policy_loss(*arguments, **self.clips, dual_clip=self.dual_clip, importance_PKT=importance_PKT)

    def loss(self, policy: Policy, batch: Batch) -> Loss:
        """:meth:`surrogate` with importance weights, KL and entropy bonus where they are set."""
        asked = policy.logprobs(batch, temperature=self.temperature, entropy=self.entropy_coef > 0)
        logp_PKT, there = asked.logp_PKT, batch.on(asked.logp_PKT.device)
        old_PKT, mask_PKT = there["old_logp_PKT"], there.mask_PKT
        weights_PKT = None
        if self.importance_cap is not None:
            weights_PKT = importance_weights(old_PKT, there["sampler_logp_PKT"], mask_PKT, cap=self.importance_cap)
        advantage_PKT = there["advantage_PKT"]
        loss_PKT = self.surrogate(logp_PKT, old_PKT, advantage_PKT, mask_PKT, importance_PKT=weights_PKT)
        surrogate = self.reduced(loss_PKT.detach(), there)
        if self.kl_in == "loss" and self.beta > 0:
            divergence_PKT = self._divergence(logp_PKT, old_PKT, there["reference_logp_PKT"], mask_PKT)
            loss_PKT = loss_PKT + there["beta_P"][:, None, None] * divergence_PKT
        if asked.entropy_PKT is not None:
            loss_PKT = loss_PKT - self.entropy_coef * asked.entropy_PKT
        if "warming_P" in there:
            loss_PKT = loss_PKT * (1 - there["warming_P"])[:, None, None]
        loss, weight = self.reduced(loss_PKT, there), self.weight(batch)
        metrics: dict[str, Any] = {
            "loss/policy": (surrogate, weight),
            "loss": (loss.detach(), weight),
            "policy/entropy": ((there["entropy_PKT"] * mask_PKT).sum(), float(batch.tokens)),
            **policy_metrics(logp_PKT, old_PKT, advantage_PKT, mask_PKT, **self.clips),
        }
        return Loss(sums={"policy": loss}, metrics=metrics)

    def _divergence(self, logp_PKT: Tensor, old_PKT: Tensor, reference_PKT: Tensor, mask_PKT: Tensor) -> Tensor:
        """The KL as a term of the loss; the gradient of ``k2`` is right without the ratio, that of the others with."""
        if self.kl_estimator == "k2":
            return per_token_kl(logp_PKT, reference_PKT, mask_PKT, "k2")
        return kl_loss(logp_PKT, old_PKT, reference_PKT, mask_PKT, self.kl_estimator)

    def stops_early(self, metrics: Mapping[str, float]) -> bool:
        """True once the approximate KL per token to the policy that drew the responses passes ``target_kl``."""
        return self.target_kl is not None and metrics["policy/approxkl"] > self.target_kl

    # Evaluations

    def merit(self, measurement: Measurement) -> float | None:
        """The objective on held-out prompts: the mean of the first scorer less ``β·KL`` (of the evaluation)."""
        means = measurement.metrics()
        if not measurement.samples or not measurement.samples[0].scores or "kl" not in means:
            return None
        return means[next(iter(measurement.samples[0].scores))] - self.beta * means["kl"]


def _objective(batch: Batch, score_PK: Tensor, log_ratio_PKT: Tensor, paid: Tensor, beta: float) -> dict[str, Any]:
    """Metrics of a roll-out under TRL's names; KL and entropy are sums over a response, in nats.

    ``objective/scores`` are the scores as they enter the advantages: normalised, clipped, and after the rules for
    responses without an end or too long. ``objective/rlhf_reward`` is their sum with ``objective/non_score_reward``.
    What the scorers said is logged as ``scores/…``. Where responses are compared, ``objective/ties`` is the share of
    prompts whose responses have one score, TRL's ``frac_reward_zero_std``.
    """
    responses = float(batch.valid_PK.sum())
    return {
        "objective/kl": (log_ratio_PKT.sum(), responses),
        "objective/entropy": ((batch["entropy_PKT"] * batch.mask_PKT).sum(), responses),
        "objective/scores": (score_PK[batch.valid_PK].sum(), responses),
        "objective/non_score_reward": (paid, responses),
        "objective/rlhf_reward": (score_PK[batch.valid_PK].sum() + paid, responses),
        "objective/beta": (beta * responses, responses),
    }


_MOMENTS = ("score_count", "score_sum", "score_squares")
