"""DAPO: decoupled clip and dynamic sampling policy optimisation (Yu et al. 2025).

Four changes of GRPO, and no KL::

    clip higher       the upper bound of ρ is 1 + .28, the lower one 1 − .2: unlikely tokens may grow
    dynamic sampling  a prompt whose responses all score alike has no advantage; it is left out, and responses to
                      further prompts are drawn (``refills`` times at most) until the step is as large as it should be
    token mean        every token of the step weighs the same, also those of long responses
    overlong          over the last fifth of max_new_tokens a penalty rises from 0 to 1 (eq. 13)

Departures: the paper draws until the step is full and cuts what is too much; here ``refills`` bounds the draws, and
what is too much is used. Where no prompt teaches anything after the last draw, no update is made. Scores of responses
that were cut off stay as they are, because the penalty already counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from align.method.base import RolloutPlan, require_not_negative
from methods.ppo.advantages import MissingEOS, spread
from methods.ppo.grpo import GRPO
from methods.ppo.policy_gradient import Reduction

if TYPE_CHECKING:
    from torch import Tensor

    from align.model.batch import Batch

__all__ = ["DAPO"]


@dataclass(frozen=True, kw_only=True)
class DAPO(GRPO):
    """GRPO with a wider upper clip, prompts that teach something alone, a token mean and a penalty on length."""

    responses: int = 16
    reduction: Reduction = "token"
    clip_high: float | None = 0.28
    beta: float = 0.0
    missing_eos: MissingEOS = "none"
    overlong_buffer: int | None = None
    refills: int = 2
    """How often further prompts are drawn for, in place of those whose responses all score alike."""

    def check(self) -> None:
        """Ranges, and settings that contradict each other."""
        super().check()
        require_not_negative(refills=self.refills)

    @property
    def rollout(self) -> RolloutPlan:
        """As for GRPO, with refills."""
        return replace(super().rollout, refills=self.refills)

    def teaches(self, batch: Batch) -> Tensor:
        """True where the scores of a prompt's responses differ."""
        return spread(batch["score_PK"], batch.valid_PK) > 0
