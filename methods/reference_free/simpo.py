"""SimPO: simple preference optimisation, without a reference (Meng et al. 2024); AlphaPO (Gupta et al. 2025).

For a chosen response w and a rejected one l, M the average log-probability per token, end-of-turn included::

    L = mean over pairs of −log σ(β·(M_w − M_l) − γ)                   γ = β·gamma_ratio        (SimPO, eq. 6)
    AlphaPO: r_α(M) = (1 − e^(−αM))/α stands for M                    α → 0 is SimPO            (AlphaPO)

Departures: none from the equation. The authors' code also has label smoothing, a hinge and an SFT term, all off by
default; they are not here (``method=cpo`` has an SFT term).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from align.method.base import require_not_negative, require_positive
from methods.dpo.losses import dpo_loss
from methods.reference_free.reference_free import ReferenceFree

if TYPE_CHECKING:
    from torch import Tensor

    from align.model.batch import Batch


def alpha_reward(logp: Tensor, alpha: float) -> Tensor:
    """``(1 − p^−α)/α`` of ``p = e^logp`` (AlphaPO, Gupta et al. 2025), its limit ``logp`` for α = 0; any shape."""
    return -torch.expm1(-alpha * logp) / alpha if alpha else logp


def simpo_loss(chosen: Tensor, rejected: Tensor, beta: float, gamma_ratio: float) -> Tensor:
    """``−log σ(β·(chosen − rejected − γ/β))`` (Meng et al. 2024, eq. 6) of rewards in nats per token; (P,)."""
    return dpo_loss(chosen - rejected - gamma_ratio, beta)


@dataclass(frozen=True, kw_only=True)
class SimPO(ReferenceFree):
    """SimPO: pairs, without a reference and by averages per token: cheaper than DPO, answers do not grow."""

    beta: float = 2.0
    """Scale β of the reward, the average log-probability."""
    gamma_ratio: float = 0.5
    """Margin γ/β by which the chosen response must lead, in nats per token."""
    alpha: float = 0.0
    """AlphaPO's α, which bends the reward: 0 is SimPO, .25 moves likelihoods less where they are high."""

    def check(self) -> None:
        """Ranges."""
        super().check()
        require_positive("SimPO", beta=self.beta)
        require_not_negative(gamma_ratio=self.gamma_ratio, alpha=self.alpha)

    def terms(self, S_PK: Tensor, M_PK: Tensor, batch: Batch) -> tuple[Mapping[str, Tensor], Tensor]:
        """See :func:`simpo_loss` and :func:`alpha_reward`."""
        del S_PK, batch
        reward_PK = alpha_reward(M_PK, self.alpha)
        return {
            "preference": simpo_loss(reward_PK[:, 0], reward_PK[:, 1], self.beta, self.gamma_ratio)
        }, self.beta * reward_PK
