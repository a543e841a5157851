"""Scores of responses against a reference: divergences other than reverse KL, LD-DPO's sums, WPO's weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch

from align.system.lazy import no_grad

if TYPE_CHECKING:
    from torch import Tensor

Divergence = Literal["reverse_kl", "forward_kl", "js", "alpha"]

_LARGEST = 30.0  # the gradient's norm sums squares: e^60 leaves float32 room for the other factors


def divergence_score(ratio: Tensor, divergence: Divergence, alpha: float) -> Tensor:
    """``f′(t)`` up to a constant, of ``log t = log π/π_ref`` in nats (f-DPO, Wang et al. 2024).

    ``log t`` for reverse KL, ``1 − 1/t`` for forward KL, ``log 2t/(1+t)`` for Jensen–Shannon, and for α
    ``(t^(α−1) − 1)/(α−1)``, where α → 1 is reverse KL and α → 0 forward KL. Exponents beyond 30 are cut there.
    """
    if divergence == "reverse_kl" or (divergence == "alpha" and abs(alpha - 1) < 1e-6):
        return ratio
    if divergence == "js":
        return math.log(2) + torch.nn.functional.logsigmoid(ratio)
    order = 0.0 if divergence == "forward_kl" else alpha
    return torch.expm1(((order - 1) * ratio).clamp(max=_LARGEST)) / (order - 1)


def ld_sums(logp_PKT: Tensor, mask_PKT: Tensor, alpha: float) -> Tensor:
    """``Σ_{t ≤ T} logp_t + α·Σ_{t > T} logp_t``; (P, K).

    T is the length of the shorter response (LD-DPO, Liu et al. 2024).
    """
    shared_P = mask_PKT.sum(-1).min(-1).values
    beyond_PKT = torch.arange(mask_PKT.shape[-1], device=mask_PKT.device) >= shared_P[:, None, None]
    return torch.where(mask_PKT, torch.where(beyond_PKT, alpha * logp_PKT, logp_PKT), 0).sum(-1)


@no_grad
def wpo_weights(logp_PKT: Tensor, squares_PKT: Tensor, mask_PKT: Tensor) -> Tensor:
    """``Π_k exp(mean_t (logp_t − log Σ_v π(v)²))`` of a pair (WPO, Zhou et al. 2024, eq. 2); (P,)."""
    aligned_PKT = torch.where(mask_PKT, logp_PKT - squares_PKT, 0)
    return (aligned_PKT.sum(-1) / mask_PKT.sum(-1).clamp(min=1)).sum(-1).exp()
