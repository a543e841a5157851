"""ORPO: odds-ratio preference optimisation (Hong et al. 2024): fine-tuning and preference in one stage, no reference.

For a chosen response w and a rejected one l, M the average log-probability per token, end-of-turn included, and
``odds = p/(1 − p)`` of ``p = e^M``::

    L = mean over pairs of −M_w − λ·log σ(log odds_w − log odds_l)                              eq. 6 and 7

The log odds are computed in float32 without forming p, and stay finite where p is 1 to the last bit.

Departures: the cross-entropy is the paper's, on the response alone (eq. 2); the authors' code, and TRL, take it over
prompt and response unless told not to, as a mean over the tokens of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from align.method.base import Optimization, require_positive
from methods.dpo.losses import dpo_loss
from methods.reference_free.reference_free import ReferenceFree

if TYPE_CHECKING:
    from torch import Tensor

    from align.model.batch import Batch


def log_odds(mean_logp: Tensor) -> Tensor:
    """``log p/(1 − p)`` of ``p = e^M`` for M ≤ 0 in nats: ``M − log(−expm1(M))``; finite at M = 0, any shape."""
    logp = mean_logp.float()
    logp = logp.clamp(max=-torch.finfo(logp.dtype).tiny)
    return logp - torch.log(-torch.expm1(logp))


def odds_ratio_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """``−log σ(log odds_w − log odds_l)`` (Hong et al. 2024, eq. 7) of averages per token; (P,)."""
    return dpo_loss(log_odds(chosen) - log_odds(rejected), 1.0)


@dataclass(frozen=True, kw_only=True)
class ORPO(ReferenceFree):
    """ORPO: pairs, SFT and preference in one stage without a reference: from a base model, in place of SFT then DPO."""

    lam: float = 0.1
    """Weight λ of the odds ratio beside the cross-entropy on the chosen responses."""

    optimization: ClassVar[Optimization] = Optimization(
        learning_rate=2e-4, full_learning_rate=8e-6, epochs=3, batch_size=32, warmup=0.1
    )

    def check(self) -> None:
        """Ranges."""
        super().check()
        require_positive("ORPO", lam=self.lam)

    def terms(self, S_PK: Tensor, M_PK: Tensor, batch: Batch) -> tuple[Mapping[str, Tensor], Tensor]:
        """See :func:`odds_ratio_loss`."""
        del S_PK, batch
        ratio_P = odds_ratio_loss(M_PK[:, 0], M_PK[:, 1])
        return {"sft": -M_PK[:, 0], "preference": self.lam * ratio_P}, self.lam * M_PK
