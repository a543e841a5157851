"""GSPO: group sequence policy optimisation (Zheng et al. 2025, eqs. 5–7).

The ratio of a whole response, per token, is clipped and multiplied, where GRPO does so with each token::

    s_i = (π(y_i | x) / π_old(y_i | x))^(1/|y_i|) = exp(mean over tokens of logp − logp_old)
    L   = mean over responses of max(−A_i·s_i, −A_i·clip(s_i, 1 − ε_low, 1 + ε_high))

s_i moves far less than the ratio of a token, so its bounds are narrow: 3e-4 and 4e-4, those of the paper, which makes
four updates of a roll-out. At the first of them s is 1, and the step is GRPO's. There is no KL (β 0). The rest is that
of :mod:`methods.ppo.grpo`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from align.errors import UserError
from methods.ppo.grpo import GRPO
from methods.ppo.loss import policy_loss
from methods.ppo.shape_checks import require_like

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["GSPO", "mean_log_ratio"]


@dataclass(frozen=True, kw_only=True)
class GSPO(GRPO):
    """GRPO with the ratio of the whole response: steadier for mixtures of experts and long answers."""

    minibatches: int = 4
    clip: float = 3e-4
    clip_high: float | None = 4e-4
    beta: float = 0.0

    def check(self) -> None:
        """Ranges, and settings that contradict each other."""
        super().check()
        if self.reduction != "response":
            raise UserError("method.reduction: the ratio of GSPO is one number for a response; leave it at response.")

    def surrogate(self, *arguments: Tensor, importance_PKT: Tensor | None) -> Tensor:
        """The loss of each response, the same at all of its tokens."""
        logp_PKT, old_PKT, advantage_PKT, mask_PKT = arguments
        log_ratio_PKT = mean_log_ratio(logp_PKT, old_PKT, mask_PKT)
        whole = (log_ratio_PKT, torch.zeros_like(log_ratio_PKT), advantage_PKT, mask_PKT)
        return policy_loss(*whole, **self.clips, dual_clip=self.dual_clip, importance_PKT=importance_PKT)


def mean_log_ratio(logp_PKT: Tensor, old_logp_PKT: Tensor, mask_PKT: Tensor) -> Tensor:
    """``log s``: the mean log-ratio of each response, at each of its tokens; 0 beyond them, (P, K, T)."""
    require_like(mask_PKT, logp_PKT=logp_PKT, old_logp_PKT=old_logp_PKT)
    total_PK1 = torch.where(mask_PKT, logp_PKT - old_logp_PKT, 0).sum(-1, keepdim=True)
    return torch.where(mask_PKT, total_PK1 / mask_PKT.sum(-1, keepdim=True).clamp(min=1), 0)
