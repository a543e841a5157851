"""GRPO: group-relative policy optimisation (Shao et al. 2024, "DeepSeekMath", section 4.1).

For K responses to a prompt::

    A_i = (r_i − mean r) / std r                        the same for every token of y_i
    L   = mean over responses of the mean over their tokens of
          max(−A·ρ, −A·clip(ρ, 1 − ε, 1 + ε)) + β·k3,   k3 = e^d − 1 − d,  d = logp_ref − logp

There is no value role, no discount and no whitening. The rest is in :mod:`methods.ppo.policy_gradient`.

Departures: in the loss k3 is multiplied by ρ, as in DeepSeek-V3.2 and TRL: its gradient is then that of
KL(π‖π_ref) (see :mod:`methods.ppo.kl`). The standard deviation has the divisor K − 1, and 1e-4 is added to it, as in
TRL. A response that was cut off gets the score −1, as in PPO here (``missing_eos=none`` leaves it its own). The paper
draws 64 responses; the default is TRL's 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from align.method.base import Metrics, Optimization
from methods.ppo.advantages import GroupScale, group, moments, on_every_token
from methods.ppo.kl import KLEstimator
from methods.ppo.policy_gradient import KLPlace, PolicyGradient, Reduction, Rewards, Total

if TYPE_CHECKING:
    from torch import Tensor

    from align.model.batch import Batch


@dataclass(frozen=True, kw_only=True)
class GRPO(PolicyGradient):
    """GRPO: PPO without a value role; a response is compared with the mean of its group, in standard deviations."""

    responses: int = 8
    """Responses drawn for each prompt; at least 2."""
    temperature: float = 1.0
    reduction: Reduction = "response"
    epochs: int = 1
    beta: float = 0.04
    kl_in: KLPlace = "loss"
    kl_estimator: KLEstimator = "k3"
    group_scale: GroupScale = "group"
    """Divisor of the advantages: the standard deviation of the ``group`` or of the ``batch``, or ``none``."""

    optimization: ClassVar[Optimization] = Optimization(
        learning_rate=1e-5, full_learning_rate=1e-6, epochs=1, batch_size=64, warmup=0.0, schedule="linear"
    )

    def advantages(self, batch: Batch, rewards: Rewards, total: Total) -> tuple[dict[str, Tensor], Metrics]:
        """See :func:`group_relative`."""
        return {"advantage_PKT": group_relative(batch, rewards, self.group_scale, total)}, {}


def group_relative(batch: Batch, rewards: Rewards, scale: GroupScale, total: Total) -> Tensor:
    """Group-relative advantages, each response's repeated at its tokens; (P, K, T)."""
    outcome_PK, valid_PK = rewards.outcome_PK, batch.valid_PK
    statistics = total(moments(outcome_PK, valid_PK))
    return on_every_token(group(outcome_PK, valid_PK, scale=scale, statistics=statistics), batch.mask_PKT)
