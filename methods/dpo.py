"""DPO: direct preference optimisation (Rafailov et al. 2023), and its siblings that use a reference on pairs.

For a pair of a chosen response w and a rejected one l, S the summed log-probability, end-of-turn included::

    h = (S_w − S_l) − (Sref_w − Sref_l)
    L = mean over pairs of −log σ(βh)                    loss_type=sigmoid; the others are other functions of h

Departures from the papers: IPO uses averages per token instead of sums, the form its authors confirmed after
publication (``ipo_sums=True`` is the paper's text). ``hinge`` is the one of RSO, with a reference; it is not SLiC-HF.
The adapter's dropout is off, as in TRL: h compares two models and is 0 before the first step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from align.errors import UserError
from align.evaluation.statistics import ordered_right
from align.method.base import Loss, Optimization, PairwiseMethod, require_effect, require_positive, sequence_sums
from align.system.lazy import no_grad

if TYPE_CHECKING:
    from torch import Tensor

    from align.model.batch import Batch
    from align.model.policy import Policy
    from align.model.roles import Role

DPOLoss = Literal["sigmoid", "cdpo", "robust", "ipo", "hinge"]


def dpo_loss(h: Tensor, beta: float) -> Tensor:
    """``−log σ(βh)`` (Rafailov et al. 2023, eq. 7). Its gradient in h is ``−βσ(−βh)``."""
    return -torch.nn.functional.logsigmoid(beta * h)


def cdpo_loss(h: Tensor, beta: float, label_smoothing: float) -> Tensor:
    """Conservative DPO (Mitchell 2023): labels are flipped with probability ε, ``−(1−ε)·log σ(βh) − ε·log σ(−βh)``."""
    return -(1 - label_smoothing) * torch.nn.functional.logsigmoid(
        beta * h
    ) - label_smoothing * torch.nn.functional.logsigmoid(-beta * h)


def robust_loss(h: Tensor, beta: float, label_smoothing: float) -> Tensor:
    """Robust DPO (Chowdhury et al. 2024, eq. 12): unbiased under label noise ε < ½.

    ``[−(1−ε)·log σ(βh) + ε·log σ(−βh)] / (1 − 2ε)``.
    """
    noisy = -(1 - label_smoothing) * torch.nn.functional.logsigmoid(
        beta * h
    ) + label_smoothing * torch.nn.functional.logsigmoid(-beta * h)
    return noisy / (1 - 2 * label_smoothing)


def ipo_loss(h: Tensor, beta: float) -> Tensor:
    """Identity preference optimisation (Azar et al. 2023, eq. 17): ``(h − 1/(2β))²``; h of means or of sums."""
    return (h - 1 / (2 * beta)) ** 2


def hinge_loss(h: Tensor, beta: float) -> Tensor:
    """Hinge loss of the log-ratio margin (RSO, Liu et al. 2023): ``max(0, 1 − βh)``."""
    return torch.relu(1 - beta * h)


@dataclass(frozen=True, kw_only=True)
class DPO(PairwiseMethod):
    """Direct preference optimisation (and cDPO, robust, IPO, hinge): pairs against a reference, no reward model."""

    beta: float = 0.1
    """Strength of the tie to the reference: the larger, the closer the policy stays."""
    loss_type: DPOLoss = "sigmoid"
    """``sigmoid`` (DPO), ``cdpo`` or ``robust`` (noisy labels), ``ipo``, ``hinge`` (RSO)."""
    label_smoothing: float = 0.0
    """Assumed share ε of flipped labels, above 0 and below 0.5, which ``cdpo`` and ``robust`` need."""
    ipo_sums: bool = False
    """IPO on summed log-probabilities, as in the paper, instead of averages per token."""
    reference: Literal["live", "cached"] = "live"
    """``live`` asks the reference in each step; ``cached`` computes it once, before the first."""

    optimization: ClassVar[Optimization] = Optimization(
        learning_rate=1e-4, full_learning_rate=1e-6, epochs=1, batch_size=16, warmup=0.1
    )
    headline: ClassVar[str] = "rewards/accuracies"
    tie: ClassVar[str | None] = "beta"
    dropout: ClassVar[bool] = False

    def check(self) -> None:
        """Ranges, and settings that contradict each other."""
        require_positive("DPO", beta=self.beta)
        noisy = self.loss_type in ("cdpo", "robust")
        if not 0 <= self.label_smoothing < 0.5:
            raise UserError(f"method.label_smoothing={self.label_smoothing}: must be in [0, 0.5).")
        if noisy and not self.label_smoothing:
            raise UserError(
                f"method.loss_type={self.loss_type} is sigmoid without method.label_smoothing, the assumed share of "
                "flipped labels; add method.label_smoothing=0.1 or another share."
            )
        require_effect(self, noisy, "method.loss_type=cdpo or robust", "label_smoothing")
        require_effect(self, self.loss_type == "ipo", "method.loss_type=ipo", "ipo_sums")

    @property
    def frozen(self) -> tuple[Role, ...]:
        """The reference, unless its log-probabilities are cached: then it needs no memory."""
        return ("reference",) if self.reference == "live" else ()

    @property
    def cached_columns(self) -> tuple[str, ...]:
        """The reference's summed log-probabilities, if they are cached."""
        return ("reference_PK",) if self.reference == "cached" else ()

    def prepare(self, policy: Policy, batch: Batch) -> Batch:
        """Add the reference's summed log-probabilities; where they are cached, the policy's before its first step."""
        if "reference_PK" in batch:
            return batch
        with policy.use("reference" if self.reference == "live" else "policy"):
            return batch.with_columns(reference_PK=_sums(policy, batch))

    def loss(self, policy: Policy, batch: Batch) -> Loss:
        """The loss named by ``loss_type``, each pair weighted by ``weight_P``."""
        policy_PK = _sums(policy, batch)
        reference_PK = batch["reference_PK"].to(policy_PK.device)
        ratio_PK = policy_PK - reference_PK
        length_PK = batch.length_PK.to(ratio_PK.device)
        margin_PK = ratio_PK / length_PK if self.loss_type == "ipo" and not self.ipo_sums else ratio_PK
        weight_P = batch["weight_P"].to(ratio_PK.device)
        loss = (_LOSSES[self.loss_type](self, margin_PK[:, 0] - margin_PK[:, 1]) * weight_P).sum()
        return Loss(
            sums={"policy": loss},
            metrics={"loss": (loss.detach(), self.weight(batch)), **self._metrics(policy_PK, ratio_PK, batch)},
        )

    @no_grad
    def _metrics(self, policy_PK: Tensor, ratio_PK: Tensor, batch: Batch) -> dict[str, tuple[Tensor, Tensor | float]]:
        """Implicit rewards ``β·(logp − logp_ref)`` under the field's usual names."""
        reward_PK = self.beta * ratio_PK
        pairs = float(batch.P)
        return {
            "rewards/chosen": (reward_PK[:, 0].sum(), pairs),
            "rewards/rejected": (reward_PK[:, 1].sum(), pairs),
            "rewards/accuracies": (ordered_right(reward_PK[:, 0] - reward_PK[:, 1]).sum(), pairs),
            "rewards/margins": ((reward_PK[:, 0] - reward_PK[:, 1]).sum(), pairs),
            "logps/chosen": (policy_PK[:, 0].sum(), pairs),
            "logps/rejected": (policy_PK[:, 1].sum(), pairs),
        }


def _sums(policy: Policy, batch: Batch) -> Tensor:
    out = policy.logprobs(batch)
    return sequence_sums(out.logp_PKT, batch.mask_PKT.to(out.logp_PKT.device))


_LOSSES: dict[str, Callable[[DPO, Tensor], Tensor]] = {
    "sigmoid": lambda method, h: dpo_loss(h, method.beta),
    "cdpo": lambda method, h: cdpo_loss(h, method.beta, method.label_smoothing),
    "robust": lambda method, h: robust_loss(h, method.beta, method.label_smoothing),
    "ipo": lambda method, h: ipo_loss(h, method.beta),
    "hinge": lambda method, h: hinge_loss(h, method.beta),
}
