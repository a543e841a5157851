"""KTO: Kahneman–Tversky optimisation (Ethayarajh et al. 2024): answers known to be good or bad, without pairs.

S the summed log-probability of an answer y to x, end-of-turn included, r = S − S_ref, z the KL baseline::

    L = mean over answers of  λ_D·(1 − σ(β(r − z)))  if y is good,  λ_U·(1 − σ(β(z − r)))  if it is bad      eq. 7, 8
    z = max(0, mean over the step of log π(y′|x) − log π_ref(y′|x)),  y′ an answer to another prompt of the step

Each answer of the step is y′ once, and weighs in both means what its row weighs. The prompt that it meets does not
depend on how the step is cut into micro-batches and ranks; no gradient flows through z.

Departures: the authors' code and TRL take z of one micro-batch, and the mean of the ranks' z; here it is of the whole
step, one y′ for each answer. TRL calls ``loss_type=apo_zero_unpaired`` what is ``baseline=false`` here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from align.method.base import require_not_negative, require_positive, response_sums
from align.model.devices import brought
from methods.unpaired.mismatched import with_other_answers
from methods.unpaired.unpaired import Unpaired, weights

if TYPE_CHECKING:
    from torch import Tensor

    from align.data import TokenizedPreferences
    from align.method.base import Loss, Together
    from align.model.batch import Batch
    from align.model.policy import Policy


def kto_loss(reward: Tensor, good: Tensor, baseline: Tensor, desirable: float, undesirable: float) -> Tensor:
    """``λ_D·σ(−(βr − βz))`` of good answers, ``λ_U·σ(βr − βz)`` of bad ones (Ethayarajh et al. 2024, eq. 7 and 8).

    Args:
        reward: ``βr``, of any shape.
        good: Where the answer is good.
        baseline: ``βz``, broadcast.
        desirable: λ_D.
        undesirable: λ_U.
    """
    above = reward - baseline
    return torch.where(good, desirable * torch.sigmoid(-above), undesirable * torch.sigmoid(above))


@dataclass(frozen=True, kw_only=True)
class KTO(Unpaired):
    """KTO: answers marked good or bad, in pairs or alone: for thumbs up and down, and where labels are noisy."""

    desirable_weight: float = 1.0
    """λ_D of good answers; the authors: λ_D·(number of good)/(λ_U·(number of bad)) between 1 and 4/3."""
    undesirable_weight: float = 1.0
    """λ_U of bad answers."""
    baseline: bool = True
    """Rewards count from the KL baseline z, which costs two passes more; false: from 0 (APO-zero, unpaired)."""

    def check(self) -> None:
        """Ranges."""
        super().check()
        weights = {"desirable_weight": self.desirable_weight, "undesirable_weight": self.undesirable_weight}
        require_not_negative(**weights)
        require_positive("KTO", **{max(weights, key=lambda name: weights[name]): max(weights.values())})

    def doubts(self, data: TokenizedPreferences, steps: int) -> Sequence[str]:
        """The same, and one prompt alone."""
        doubts, prompt = list(super().doubts(data, steps)), data[0].prompt_ids
        if self.baseline and all(example.prompt_ids == prompt for example in data):
            doubts.append(
                "all rows of the training data have one prompt, so KTO's baseline z, which is taken from answers to "
                "other prompts, is 0; add prompts, or say so with method.baseline=false."
            )
        return doubts

    def prepare_step(self, policy: Policy, parts: Sequence[Batch], together: Together) -> Sequence[Batch]:
        """Add βz: the mean log-ratio of other prompts' answers over all ranks; 0 where the step has but one prompt."""
        if not self.baseline:
            return [part.with_columns(baseline_P=torch.zeros(part.P)) for part in parts]
        others = with_other_answers(parts, together)

        def ratios() -> tuple[float, float]:
            found = brought([self._log_ratios(policy, part) for part in others])
            return sum(total for total, _ in found), sum(weight for _, weight in found)

        total, weight = map(sum, zip(*together(ratios), strict=True))
        z = max(0.0, total / weight) if weight else 0.0
        return [part.with_columns(baseline_P=torch.full((part.P,), self.beta * z)) for part in parts]

    def _log_ratios(self, policy: Policy, batch: Batch) -> tuple[Tensor, float]:
        """The weighted sum of ``log π − log π_ref`` over the responses, and their weight."""
        ratio_PK = response_sums(policy, batch) - self.prepare(policy, batch)["reference_PK"]
        return (ratio_PK * weights(batch.on(ratio_PK.device))).sum(), self.weight(batch)

    def losses(self, reward_PK: Tensor, batch: Batch) -> Tensor:
        """See :func:`kto_loss`."""
        return kto_loss(
            reward_PK, batch["good_PK"], batch["baseline_P"][:, None], self.desirable_weight, self.undesirable_weight
        )

    def loss(self, policy: Policy, batch: Batch) -> Loss:
        """The loss and the baseline, ``kl``."""
        loss = super().loss(policy, batch)
        kl = batch["baseline_P"].sum() / self.beta
        return replace(loss, metrics={**loss.metrics, **({"kl": (kl, batch.P)} if self.baseline else {})})
