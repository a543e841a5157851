"""SLiC-HF: sequence likelihood calibration with human feedback (Zhao et al. 2023).

For a comparison of a preferred response + and the other one −, S the summed log-probability::

    L = max(0, δ − S⁺ + S⁻) − λ·S_target                 the mean over comparisons

The hinge puts the preferred response ahead by a margin δ, the cross-entropy on a target keeps the model fluent. There
is no reference model, unlike in the hinge of DPO's family.

Departures from the paper: a ranking of K responses gives all of its comparisons, where the paper draws some of them;
each comparison is one example, so a prompt counts once per comparison.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from align.method.base import Loss, Optimization, require_effect, require_not_negative, require_positive, sequence_sums
from methods.from_candidates import CandidateMethod
from methods.ranking import best_response, comparison_metrics

if TYPE_CHECKING:
    from torch import Tensor

    from align.data import Unit
    from align.model.batch import Batch
    from align.model.policy import Policy

Target = Literal["chosen", "best", "sft"]


def calibration_loss(S_PK: Tensor, better_PKK: Tensor, delta: float) -> Tensor:
    """``Σ max(0, δ − S_i + S_j)`` over the comparisons i ≻ j of each prompt (Zhao et al. 2023); (P,).

    Args:
        S_PK: Summed log-probabilities of the responses, in nats.
        better_PKK: True at (p, i, j) where response i was preferred to response j.
        delta: The margin δ, in nats.
    """
    assert better_PKK.shape == (*S_PK.shape, S_PK.shape[1])
    hinge_PKK = torch.relu(delta - S_PK[:, :, None] + S_PK[:, None, :])
    return torch.where(better_PKK, hinge_PKK, 0).sum((1, 2))


@dataclass(frozen=True, kw_only=True)
class SLiC(CandidateMethod):
    """SLiC-HF: the preferred response ahead by a margin, and a cross-entropy on a target; no reference model.

    The loss is ``max(0, δ − S⁺ + S⁻) − λ·S_target``, the mean over comparisons; S the summed log-probability.
    """

    delta: float = 1.0
    """Margin δ, in nats, of the preferred response."""
    sft_weight: float = 0.5
    """Weight λ of the cross-entropy on the target."""
    target: Target = "chosen"
    """Of the cross-entropy: ``chosen``, ``best`` of the ranking, ``sft`` (an uncompared demonstration, else best)."""
    normalize_length: bool = False
    """Average per token instead of summing, in both terms; the margin is then in nats per token."""
    top_k: int = 40
    """Sample candidates from the k most probable tokens only; 0: all."""

    unit: ClassVar[Unit] = "ranking"
    optimization: ClassVar[Optimization] = Optimization(
        learning_rate=1e-4, full_learning_rate=1e-5, epochs=1, batch_size=32, warmup=0.1
    )
    headline: ClassVar[str] = "rewards/accuracies"
    tie: ClassVar[str | None] = "sft_weight"  # the paper's regularisation

    def check(self) -> None:
        """Ranges, and settings that contradict each other."""
        require_positive("SLiC", delta=self.delta)
        require_not_negative(sft_weight=self.sft_weight)
        require_effect(self, self.sft_weight > 0, "method.sft_weight above 0", "target")
        super().check()

    def weight(self, batch: Batch) -> float:
        """The number of comparisons, each times the weight of its prompt."""
        return float((batch["better_PKK"].sum((1, 2)) * batch["weight_P"]).sum())

    def loss(self, policy: Policy, batch: Batch) -> Loss:
        """See :func:`calibration_loss`."""
        logp_PKT = policy.logprobs(batch).logp_PKT
        targets_PK = self._targets(batch["better_PKK"], batch.valid_PK)
        there = batch.with_columns(targets_PK=targets_PK).on(logp_PKT.device)
        mask_PKT, weight_P, better_PKK = there.mask_PKT, there["weight_P"], there["better_PKK"]
        sums_PK = sequence_sums(logp_PKT, mask_PKT)
        S_PK = sums_PK / mask_PKT.sum(-1).clamp(min=1) if self.normalize_length else sums_PK
        rank_P = calibration_loss(S_PK, better_PKK, self.delta)
        sft_P = -(S_PK * there["targets_PK"]).sum(1)  # (P,), like the hinge: never one per token
        loss = ((rank_P + self.sft_weight * sft_P) * weight_P).sum()
        weight = self.weight(batch)
        return Loss(
            sums={"policy": loss},
            metrics={
                "loss": (loss.detach(), weight),
                "loss/rank": ((rank_P.detach() * weight_P).sum(), weight),
                "loss/sft": ((sft_P.detach() * weight_P).sum(), weight),
                **comparison_metrics(S_PK.detach(), better_PKK, weight_P),
            },
        )

    def _targets(self, better_PKK: Tensor, valid_PK: Tensor) -> Tensor:
        """Number of comparisons that each response is the target of; int64 (P, K), on the CPU."""
        if self.target == "chosen":
            return better_PKK.sum(2)
        target_P = best_response(better_PKK, valid_PK)
        if self.target == "sft":
            alone_PK = valid_PK & ~better_PKK.any(1) & ~better_PKK.any(2)
            target_P = torch.where(alone_PK.any(1), alone_PK.int().argmax(1), target_P)
        counts_PK = torch.zeros_like(valid_PK, dtype=torch.long)
        return counts_PK.scatter(1, target_P[:, None], better_PKK.sum((1, 2))[:, None])
