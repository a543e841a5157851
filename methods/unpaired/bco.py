"""BCO: binary classifier optimisation (Jung et al. 2024): the implicit reward as a classifier of good and bad answers.

S the summed log-probability of an answer, end-of-turn included, r = β·(S − S_ref)::

    L = mean over answers of  −log σ(r − δ)  if it is good,  −log σ(−(r − δ))  if it is bad
    δ = ½·(mean r of the good answers + mean r of the bad ones), of the step on all ranks; no gradient

Departures: δ is of the step, where the authors keep a moving average over steps; a step with one kind of answers has
the mean of that kind. The density ratio that reweighs bad answers to the prompts of good ones (UDM) is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from align.method.base import response_sums
from align.model.devices import brought
from methods.unpaired.unpaired import Unpaired, weights

if TYPE_CHECKING:
    from torch import Tensor

    from align.method.base import Loss, Together
    from align.model.batch import Batch
    from align.model.policy import Policy


def bco_loss(reward: Tensor, good: Tensor, shift: Tensor) -> Tensor:
    """``−log σ(r − δ)`` of good answers, ``−log σ(δ − r)`` of bad ones (Jung et al. 2024), of any shape."""
    above = reward - shift
    return -torch.nn.functional.logsigmoid(torch.where(good, above, -above))


@dataclass(frozen=True, kw_only=True)
class BCO(Unpaired):
    """BCO: answers marked good or bad, in pairs or alone: like KTO, without saturation, so outliers count more."""

    def prepare_step(self, policy: Policy, parts: Sequence[Batch], together: Together) -> Sequence[Batch]:
        """Add δ, from the rewards of the whole step; a pass more."""

        def sums() -> list[float]:
            found = brought([self._sums(policy, part) for part in parts])
            return [sum(values) for values in zip(*found, strict=True)] or [0.0] * 4

        good, goods, bad, bads = map(sum, zip(*together(sums), strict=True))
        means = [total / count for total, count in ((good, goods), (bad, bads)) if count]
        delta = sum(means) / len(means)
        return [part.with_columns(delta_P=torch.full((part.P,), delta)) for part in parts]

    def _sums(self, policy: Policy, part: Batch) -> list[Tensor]:
        """The weighted sum of the rewards of good answers and their weight, and the same of bad ones."""
        reward_PK = self.beta * (response_sums(policy, part) - part["reference_PK"])
        there = part.on(reward_PK.device)
        weights_of_sides = [side_PK * weights(there) for side_PK in (there["good_PK"], ~there["good_PK"])]
        return [x for weight_PK in weights_of_sides for x in ((weight_PK * reward_PK).sum(), weight_PK.sum())]

    def losses(self, reward_PK: Tensor, batch: Batch) -> Tensor:
        """See :func:`bco_loss`."""
        return bco_loss(reward_PK, batch["good_PK"], batch["delta_P"][:, None])

    def loss(self, policy: Policy, batch: Batch) -> Loss:
        """The loss and δ."""
        loss = super().loss(policy, batch)
        return replace(loss, metrics={**loss.metrics, "rewards/shift": (batch["delta_P"].sum(), batch.P)})
