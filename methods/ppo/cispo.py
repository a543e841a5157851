"""CISPO: clipped importance-sampling weights (MiniMax-M1, 2025, eqs. 4–5).

PPO's clip takes the gradient of a token away once its ratio has left the bounds, and with it rare tokens that matter
("however", "wait"). Here the ratio is a weight without gradient, which is bounded, and every token keeps its own::

    L = mean over tokens of −A·min(ρ, 1 + ε_high)·logp        no gradient through ρ

At ρ = 1 it has the gradient of GRPO. Only the upper bound is used, as in the paper, which does not give its value; 5 is
that of ScaleRL (Khatri et al. 2025) and of TRL's example. There is no KL (β 0). The rest is that of
:mod:`methods.ppo.grpo`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from align.errors import UserError
from methods.ppo.grpo import GRPO
from methods.ppo.loss import ratio
from methods.ppo.policy_gradient import Reduction
from methods.ppo.shape_checks import require_like

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CISPO", "cispo_loss"]


@dataclass(frozen=True, kw_only=True)
class CISPO(GRPO):
    """GRPO whose clip bounds the weight of a token and leaves it its gradient."""

    reduction: Reduction = "token"
    clip_high: float | None = 4.0
    beta: float = 0.0

    def check(self) -> None:
        """Ranges, and settings that contradict each other."""
        super().check()
        if self.clip != GRPO.clip or self.clip_high is None or self.dual_clip is not None:
            raise UserError("CISPO has one bound, method.clip_high; leave out method.clip and method.dual_clip.")

    @property
    def clips(self) -> dict[str, float]:
        """No bound below."""
        assert self.clip_high is not None
        return {"clip_low": 1.0, "clip_high": self.clip_high}

    def surrogate(self, *arguments: Tensor, importance_PKT: Tensor | None) -> Tensor:
        """:func:`cispo_loss`."""
        loss_PKT = cispo_loss(*arguments, clip_high=self.clips["clip_high"])
        return loss_PKT if importance_PKT is None else loss_PKT * importance_PKT


def cispo_loss(
    logp_PKT: Tensor, old_logp_PKT: Tensor, advantage_PKT: Tensor, mask_PKT: Tensor, *, clip_high: float
) -> Tensor:
    """``−A·min(ρ, 1 + ε_high)·logp`` with gradient through logp alone; (P, K, T), 0 beyond the mask."""
    require_like(mask_PKT, logp_PKT=logp_PKT, old_logp_PKT=old_logp_PKT, advantage_PKT=advantage_PKT)
    weight_PKT = ratio(logp_PKT, old_logp_PKT, mask_PKT).detach().clamp(max=1 + clip_high)
    return torch.where(mask_PKT, -advantage_PKT * weight_PKT * torch.where(mask_PKT, logp_PKT, 0), 0)
