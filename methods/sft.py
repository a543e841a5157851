"""SFT: supervised fine-tuning on the chosen responses.

The loss of an optimiser step::

    nll   L = −Σ_t log π(y_t | x, y_<t) / (response tokens of the step)              the prompt is masked
    dft   L = −Σ_t sg(π(y_t | x, y_<t))·log π(y_t | x, y_<t) / (the same)            sg: without gradient

Dynamic fine-tuning (Wu et al. 2025, arXiv 2508.05629) reads the gradient of cross-entropy as a policy gradient
whose reward is 1/π for the demonstrated token, and takes that weight out: tokens that the model finds unlikely, which
a demonstration may hold by accident, no longer have the largest gradients.

Departure from the usual trainer: the denominator counts the whole optimiser step, never a micro-batch or a rank,
because averages of averages weigh short responses more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from align.method.base import Loss, Method, Optimization, sequence_sums

if TYPE_CHECKING:
    from torch import Tensor

    from align.data import Unit
    from align.evaluation.measurement import Measurement
    from align.model.batch import Batch
    from align.model.policy import Policy

LossType = Literal["nll", "dft"]
Reduction = Literal["token_mean", "sequence_mean", "sequence_sum"]


def sft_loss(
    logp_PKT: Tensor, mask_PKT: Tensor, *, loss_type: LossType = "nll", reduction: Reduction = "token_mean"
) -> Tensor:
    """Loss of each response, to be summed and divided by :meth:`SFT.weight`; (P, K).

    With ``l_t = logp_t`` (``nll``) or ``sg(exp logp_t)·logp_t`` (``dft``), ``token_mean`` and ``sequence_sum``:
    ``−Σ_t l_t``; ``sequence_mean``: ``−(1/T)·Σ_t l_t``. The denominator is the number of response tokens of the step
    for ``token_mean``, of responses for the other two.

    Args:
        logp_PKT: Token log-probabilities in nats.
        mask_PKT: Where a response token exists.
        loss_type: See above.
        reduction: Weighting of sequences of different lengths.
    """
    assert logp_PKT.shape == mask_PKT.shape
    if loss_type == "dft":
        logp_PKT = logp_PKT.detach().exp().where(mask_PKT, 0) * logp_PKT
    sums_PK = -sequence_sums(logp_PKT, mask_PKT)
    return sums_PK / mask_PKT.sum(-1).clamp(min=1) if reduction == "sequence_mean" else sums_PK


@dataclass(frozen=True, kw_only=True)
class SFT(Method):
    """Supervised fine-tuning on the chosen responses, prompts masked."""

    loss_type: LossType = "nll"
    """``nll``: cross-entropy; ``dft``: each token's weighed by its probability, so that unlikely ones pull less."""
    reduction: Reduction = "token_mean"
    """``token_mean`` weighs all tokens alike, ``sequence_mean`` all responses; ``sequence_sum`` favours long ones."""

    unit: ClassVar[Unit] = "demonstration"
    optimization: ClassVar[Optimization] = Optimization(
        learning_rate=2e-4, full_learning_rate=2e-5, epochs=3, batch_size=16, warmup=0.03
    )
    headline: ClassVar[str] = "nll_per_token"

    def weight(self, batch: Batch) -> float:
        """Number of response tokens (``token_mean``) or responses, each times the weight of its row."""
        count_P = batch.length_PK.sum(-1) if self.reduction == "token_mean" else batch.valid_PK.sum(-1)
        return float((count_P * batch["weight_P"]).sum())

    def merit(self, measurement: Measurement) -> float | None:
        """The mean of the first scorer over held-out answers: the loss rises while answers still improve (LIMA)."""
        scores = measurement.samples[0].scores if measurement.samples else {}
        return measurement.metrics()[next(iter(scores))] if scores else None

    def loss(self, policy: Policy, batch: Batch) -> Loss:
        """See :func:`sft_loss`."""
        out = policy.logprobs(batch)
        there = batch.on(out.logp_PKT.device)
        mask_PKT, weight_P = there.mask_PKT, there["weight_P"]
        loss_PK = sft_loss(out.logp_PKT, mask_PKT, loss_type=self.loss_type, reduction=self.reduction)
        loss = (loss_PK.sum(-1) * weight_P).sum()
        with torch.no_grad():
            nll = -(sequence_sums(out.logp_PKT, mask_PKT).sum(-1) * weight_P).sum()
            tokens, responses = (
                float((count_PK.sum(-1) * batch["weight_P"]).sum()) for count_PK in (batch.length_PK, batch.valid_PK)
            )
        return Loss(
            sums={"policy": loss},
            metrics={
                "loss": (loss.detach(), self.weight(batch)),
                "nll_per_token": (nll, tokens),
                "tokens_per_response": (torch.tensor(tokens), responses),
            },
        )
