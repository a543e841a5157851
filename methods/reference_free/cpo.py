"""CPO: contrastive preference optimisation (Xu et al. 2024), DPO with a uniform reference and a cross-entropy.

For a chosen response w and a rejected one l, S the summed log-probability, end-of-turn included::

    L = mean over pairs of −log σ(β·(S_w − S_l)) + sft_weight·(−log π(w), mean over tokens)     section 3
    alpha ≠ 0: r_α(S) = (1 − e^(−αS))/α stands for S (AlphaPO's transformation)

Departures: the cross-entropy is a mean over all tokens of the chosen responses of the step, as the authors' code has it
for a micro-batch; the paper writes an expectation over responses. ``alpha`` is not part of CPO (TRL has it); on sums
e^(−αS) overflows unless α is small: AlphaPO itself, with averages and a margin, is ``method=simpo method.alpha=0.25``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from align.method.base import require_not_negative, require_positive
from methods.dpo.losses import dpo_loss
from methods.reference_free.reference_free import ReferenceFree
from methods.reference_free.simpo import alpha_reward
from methods.step_means import with_pairs_per_token

if TYPE_CHECKING:
    from torch import Tensor

    from align.method.base import Together
    from align.model.batch import Batch
    from align.model.policy import Policy


@dataclass(frozen=True, kw_only=True)
class CPO(ReferenceFree):
    """CPO: pairs, without a reference, plus SFT on the chosen: where chosen answers are worth imitating."""

    beta: float = 0.1
    """Scale β of the difference of log-probabilities."""
    sft_weight: float = 1.0
    """Weight of the cross-entropy on the chosen responses."""
    alpha: float = 0.0
    """AlphaPO's α, of sums: 0 is CPO; .01 is large here."""

    def check(self) -> None:
        """Ranges."""
        super().check()
        require_positive("CPO", beta=self.beta)
        require_not_negative(sft_weight=self.sft_weight, alpha=self.alpha)

    def prepare_step(self, policy: Policy, parts: Sequence[Batch], together: Together) -> Sequence[Batch]:
        """Add the pairs per token of the chosen responses, which only the whole step knows."""
        del policy
        return with_pairs_per_token(parts, together)

    def terms(self, S_PK: Tensor, M_PK: Tensor, batch: Batch) -> tuple[Mapping[str, Tensor], Tensor]:
        """See the module."""
        del M_PK
        reward_PK = alpha_reward(S_PK, self.alpha)
        nll_P = -S_PK[:, 0] * batch["pairs_per_token_P"]
        terms = {"preference": dpo_loss(reward_PK[:, 0] - reward_PK[:, 1], self.beta), "sft": self.sft_weight * nll_P}
        return terms, self.beta * reward_PK
