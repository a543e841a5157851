"""PPO: proximal policy optimisation from human feedback (Schulman et al. 2017; Ouyang et al. 2022, eq. 2).

The whole of it; policy, reference, reward and value are adapters on one base::

    draw K responses y to each prompt, score them                                 # align.training.rollout
    logp_old, logp_ref, V_old = policy(y), reference(y), value(y)                 # ask_roles
    R_t = −β·(logp_old − logp_ref)_t, and the score of y at its last token        # advantages.place_score
    δ_t = R_t + γ·V_old_{t+1} − V_old_t;   A_t = Σ_l (γλ)^l·δ_{t+l}               # advantages.gae
    ret = A + V_old;   A ← (A − mean A) / std A                                   # advantages.whiten
    for each pass, for each minibatch:
        ρ = exp(logp − logp_old)
        L_policy = mean max(−A·ρ, −A·clip(ρ, 1 − ε, 1 + ε))                       # loss.policy_loss
        L_value  = ½·mean max((V − ret)², (clip(V, V_old ± ε_v) − ret)²)          # loss.value_loss
        step on L_policy + value_coef·L_value + γ_ptx·(loss on demonstrations)    # PPO-ptx

Means are over the response tokens of the step. The parts shared with RLOO and GRPO are in
:mod:`methods.ppo.policy_gradient`; ``advantage=rloo`` and ``advantage=group`` are these two (:mod:`methods.ppo.rloo`,
:mod:`methods.ppo.grpo`) with the defaults of PPO.

Departures: value and policy are separate adapters, so ``value_coef`` only sets how much of the common gradient norm
each may take. The score is added at the last token of a response, as in lm-human-preferences, where Huang et al. (2024)
add it one position later.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch

from align.errors import UserError
from align.method.base import Experience, Loss, Metrics, State, require_effect, require_not_negative, require_positive
from methods.ppo.advantages import GroupScale, gae, moments, place_score, whiten
from methods.ppo.grpo import group_relative
from methods.ppo.loss import explained_variance, value_loss, value_metrics
from methods.ppo.policy_gradient import PolicyGradient, Rewards, Total
from methods.ppo.rloo import leave_one_out

if TYPE_CHECKING:
    from torch import Tensor

    from align.model.batch import Batch
    from align.model.policy import Policy
    from align.model.roles import Role

Advantage = Literal["gae", "rloo", "group"]
ValueInit = Literal["zero", "reward"]


_OF_VALUE = (
    *("gamma", "lam", "value_coef", "value_clip", "value_init", "value_warmup"),
    *("whiten_rewards", "whiten_advantages"),
)


@dataclass(frozen=True, kw_only=True)
class PPO(PolicyGradient):
    """Reinforcement learning from human feedback: PPO with a value role; rloo and grpo do without."""

    advantage: Advantage = "gae"
    """``gae`` trains a value role; ``rloo`` and ``group`` (GRPO) compare the responses to a prompt with each other."""
    gamma: float = 1.0
    """Discount of later rewards."""
    lam: float = 0.95
    """λ of the advantage estimate: 1 is the plain return, 0 one step."""
    value_coef: float = 0.1
    """Weight of the value loss."""
    value_clip: float | None = 0.2
    """ε_v: how far a value may move in its loss."""
    value_init: ValueInit = "zero"
    """The value begins as 0, or as a copy of the reward role."""
    value_warmup: int = 0
    """Number of first roll-outs in which the value is trained alone."""
    whiten_rewards: bool = False
    """Scale the rewards of tokens to variance 1; their mean stays."""
    whiten_advantages: bool = True
    """Shift and scale advantages to mean 0 and variance 1 over the roll-out; ``gae`` only."""
    group_scale: GroupScale = "group"
    """Divisor of ``group``: the standard deviation of the ``group`` or of the ``batch``, or ``none``."""

    def check(self) -> None:
        """Ranges, and settings that contradict each other."""
        super().check()
        require_not_negative(value_coef=self.value_coef, value_warmup=self.value_warmup)
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"method.{name}={getattr(self, name)}: must be from 0 to 1.")
        with_value, in_group = self.advantage == "gae", self.advantage == "group"
        require_effect(self, with_value, "method.advantage=gae", *_OF_VALUE)
        require_effect(self, in_group, "method.advantage=group", "group_scale")
        if self.value_clip is not None:
            require_positive(type(self).__name__, value_clip=self.value_clip)

    @property
    def compares(self) -> bool:
        """Not with a value role, which each response is compared with."""
        return self.advantage != "gae"

    @property
    def trains(self) -> tuple[Role, ...]:
        """The policy, and the value where advantages are estimated with one."""
        return ("policy", "value") if self.advantage == "gae" else ("policy",)

    def begin(self, policy: Policy) -> None:
        """Copy the reward role into the value role if ``value_init=reward``."""
        if self.advantage != "gae" or self.value_init == "zero":
            return
        if "reward" not in policy.roles.names:
            raise UserError("method.value_init=reward: there is no reward role to copy; use zero with a scorer.")
        policy.roles.copy("reward", "value")

    def ask_roles(self, policy: Policy, batch: Batch) -> Batch:
        """Add old and reference log-probabilities, entropies, and values."""
        batch = super().ask_roles(policy, batch)
        if self.advantage != "gae":
            return batch
        with policy.use("value"):
            return batch.with_columns(old_value_PKT=policy.values(batch))

    def compute_advantages(self, batch: Batch, state: State, total: Total) -> Experience:
        """As for every policy gradient; the first ``value_warmup`` roll-outs leave the policy as it is."""
        experience = super().compute_advantages(batch, state, total)
        if not self.value_warmup:
            return experience
        warming_P = torch.full((batch.P,), float(state.get("rollouts", 0) < self.value_warmup))
        return replace(experience, batch=experience.batch.with_columns(warming_P=warming_P))

    def advantages(self, batch: Batch, rewards: Rewards, total: Total) -> tuple[dict[str, Tensor], Metrics]:
        """Advantages of the tokens by the estimator that is set; with ``gae`` the returns as well."""
        if self.advantage == "rloo":
            return {"advantage_PKT": leave_one_out(batch, rewards)}, {}
        if self.advantage == "group":
            return {"advantage_PKT": group_relative(batch, rewards, self.group_scale, total)}, {}
        mask_PKT, value_PKT = batch.mask_PKT, batch["old_value_PKT"]
        reward_PKT = place_score(rewards.score_PK, mask_PKT) + rewards.penalty_PKT
        if self.whiten_rewards:
            statistics = total(moments(reward_PKT, mask_PKT))
            reward_PKT = whiten(reward_PKT, mask_PKT, statistics, shift_mean=False)
        advantage_PKT, return_PKT = gae(reward_PKT, value_PKT, mask_PKT, gamma=self.gamma, lam=self.lam)
        statistics = total(moments(return_PKT, mask_PKT))
        metrics = dict(explained_variance(value_PKT, return_PKT, mask_PKT, statistics))
        if self.whiten_advantages:
            statistics = total(moments(advantage_PKT, mask_PKT))
            advantage_PKT = whiten(advantage_PKT, mask_PKT, statistics)
        return {"advantage_PKT": advantage_PKT, "return_PKT": return_PKT}, metrics

    def loss(self, policy: Policy, batch: Batch) -> Loss:
        """The loss of the role in use: the policy's, or :func:`~methods.ppo.loss.value_loss`."""
        return self._value_loss(policy, batch) if policy.role == "value" else super().loss(policy, batch)

    def _value_loss(self, policy: Policy, batch: Batch) -> Loss:
        value_PKT = policy.values(batch)
        there = batch.on(value_PKT.device)
        old_PKT, return_PKT, mask_PKT = there["old_value_PKT"], there["return_PKT"], there.mask_PKT
        loss_PKT = value_loss(value_PKT, old_PKT, return_PKT, mask_PKT, clip=self.value_clip)
        loss = self.reduced(loss_PKT, there)
        metrics: dict[str, tuple[Tensor, Tensor | float]] = {"loss/value": (loss.detach(), self.weight(batch))}
        if self.value_clip is not None:
            metrics |= value_metrics(value_PKT, old_PKT, return_PKT, mask_PKT, clip=self.value_clip)
        return Loss(sums={"value": self.value_coef * loss}, metrics=metrics)
