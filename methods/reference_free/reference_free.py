"""The common part of methods on pairs that have no reference model: likelihoods of both responses, and the metrics."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from align.method.base import Loss, Optimization, PairwiseMethod, sequence_sums
from methods.from_candidates import PairsFromCandidates
from methods.ranking import pair_metrics

if TYPE_CHECKING:
    from torch import Tensor

    from align.model.batch import Batch
    from align.model.policy import Policy


@dataclass(frozen=True, kw_only=True)
class ReferenceFree(PairsFromCandidates, PairwiseMethod):
    """Pairs without a reference: the loss is a sum of terms, each of the likelihoods of the two responses."""

    optimization: ClassVar[Optimization] = Optimization(
        learning_rate=1e-4, full_learning_rate=1e-6, epochs=1, batch_size=32, warmup=0.1
    )
    headline: ClassVar[str] = "rewards/accuracies"

    @abstractmethod
    def terms(self, S_PK: Tensor, M_PK: Tensor, batch: Batch) -> tuple[Mapping[str, Tensor], Tensor]:
        """Return the terms of the loss of each pair by name, (P,), and the implicit rewards, (P, 2).

        Args:
            S_PK: Summed log-probabilities in nats, end-of-turn included.
            M_PK: Their averages per token.
            batch: The prepared batch, where they are.
        """

    def loss(self, policy: Policy, batch: Batch) -> Loss:
        """The sum of the terms, each pair weighted by ``weight_P``."""
        logp_PKT = policy.logprobs(batch).logp_PKT
        there = batch.on(logp_PKT.device)
        S_PK = sequence_sums(logp_PKT, there.mask_PKT)
        terms, reward_PK = self.terms(S_PK, S_PK / there.length_PK, there)
        weight_P, weight = there["weight_P"], self.weight(batch)
        sums = {name: (term_P * weight_P).sum() for name, term_P in terms.items()}
        total = sum(sums.values(), S_PK.new_zeros(()))
        each = {f"loss/{name}": (value.detach(), weight) for name, value in sums.items()} if len(sums) > 1 else {}
        return Loss(
            sums={"policy": total},
            metrics={
                "loss": (total.detach(), weight),
                **each,
                **pair_metrics(reward_PK.detach(), S_PK.detach(), weight_P),
            },
        )
