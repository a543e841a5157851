"""REINFORCE++ (Hu et al. 2025): PPO's clip and KL per token, without a value role and without groups.

The return of a token is the score less the KL that is still to come; it is normalised over the whole roll-out::

    G_t = r − β·Σ_{u ≥ t} (logp_old − logp_ref)_u            r less the mean of the prompt's, with group_baseline
    A_t = (G_t − mean) / √(var + 1e-8)                       over the tokens of the roll-out, of all ranks
    L   = mean over tokens of max(−A·ρ, −A·clip(ρ, 1 − ε, 1 + ε))

Normalising over the roll-out instead of a prompt's few responses has hardly any bias, and one response to a prompt is
enough. ``group_baseline=true`` is the authors' REINFORCE++-baseline, for several responses to hard tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from align.method.base import Metrics
from methods.ppo.advantages import group, moments, returns_to_go, whiten
from methods.ppo.policy_gradient import PolicyGradient, Rewards, Total

if TYPE_CHECKING:
    from torch import Tensor

    from align.model.batch import Batch

__all__ = ["ReinforcePP"]


@dataclass(frozen=True, kw_only=True)
class ReinforcePP(PolicyGradient):
    """REINFORCE++: PPO without a value role; a token's return is compared with all others of the roll-out."""

    temperature: float = 1.0
    epochs: int = 1
    group_baseline: bool = False
    """Take the mean score of a prompt's responses from each first; needs at least 2 of them."""

    @property
    def compares(self) -> bool:
        """With a baseline of the group alone."""
        return self.group_baseline

    def advantages(self, batch: Batch, rewards: Rewards, total: Total) -> tuple[dict[str, Tensor], Metrics]:
        """Normalised returns of the tokens."""
        score_PK, mask_PKT = rewards.score_PK, batch.mask_PKT
        if self.group_baseline:
            score_PK = group(score_PK, batch.valid_PK, scale="none")
        return_PKT = returns_to_go(score_PK, rewards.penalty_PKT, mask_PKT)
        return {"advantage_PKT": whiten(return_PKT, mask_PKT, total(moments(return_PKT, mask_PKT)))}, {}
