"""The common part of methods that learn from single answers known to be good or bad: sums, weights, and metrics."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from align.evaluation.statistics import ordered_right
from align.method.base import Loss, Optimization, require_positive, response_sums
from align.system.lazy import no_grad
from methods.from_candidates import PairsAgainstReference

if TYPE_CHECKING:
    from torch import Tensor

    from align.data import TokenizedPreferences, Unit
    from align.model.batch import Batch
    from align.model.policy import Policy
    from align.model.roles import Role


@dataclass(frozen=True, kw_only=True)
class Unpaired(PairsAgainstReference):
    """Each answer counts for itself: a pair is a good and a bad one, a row with one side is one."""

    unit: ClassVar[Unit] = "judgement"
    optimization: ClassVar[Optimization] = Optimization(
        learning_rate=1e-4, full_learning_rate=1e-6, epochs=1, batch_size=32, warmup=0.1
    )
    tie: ClassVar[str | None] = "beta"
    dropout: ClassVar[bool] = False

    beta: float = 0.1
    """Strength of the tie to the reference: the larger, the closer the policy stays."""

    def check(self) -> None:
        """Ranges, and settings that contradict each other."""
        super().check()
        require_positive(type(self).__name__, beta=self.beta)

    @property
    def frozen(self) -> tuple[Role, ...]:
        """The reference."""
        return ("reference",)

    def doubts(self, data: TokenizedPreferences, steps: int) -> Sequence[str]:
        """Answers that are all good or all bad; looks no further than the second kind."""
        del steps
        kinds = (good for example in data if example.weight for good in example.good)
        first = next(kinds, True)
        if any(good is not first for good in kinds):
            return ()
        kind, missing, moves = ("good", "bad", "raises") if first else ("bad", "good", "lowers")
        return (
            f"all answers of the training data are {kind}, so {type(self).__name__} {moves} all of them and compares "
            f"nothing; add {missing} ones{', or take method=sft' if first else ''}.",
        )

    def cached_columns(self, passes: float) -> tuple[str, ...]:
        """The reference's summed log-probabilities, if they would be asked for again."""
        return ("reference_PK",) if passes > 1 else ()

    def prepare(self, policy: Policy, batch: Batch) -> Batch:
        """Add the reference's summed log-probabilities."""
        if "reference_PK" in batch:
            return batch
        with policy.use("reference"):
            return batch.with_columns(reference_PK=response_sums(policy, batch))

    def weight(self, batch: Batch) -> float:
        """The number of answers, each times the weight of its row."""
        return float(weights(batch).sum())

    @abstractmethod
    def losses(self, reward_PK: Tensor, batch: Batch) -> Tensor:
        """The loss of each answer of rewards ``β·(S − S_ref)``; (P, K), anything where there is none.

        The batch is where the rewards are.
        """

    def loss(self, policy: Policy, batch: Batch) -> Loss:
        """The losses of all answers, each weighted by the weight of its row."""
        S_PK = response_sums(policy, batch)
        there = batch.on(S_PK.device)
        reward_PK = self.beta * (S_PK - there["reference_PK"])
        loss = (self.losses(reward_PK, there) * weights(there)).sum()
        metrics = judgement_metrics(reward_PK.detach(), S_PK.detach(), batch)
        return Loss(sums={"policy": loss}, metrics={"loss": (loss.detach(), self.weight(batch)), **metrics})


def weights(batch: Batch) -> Tensor:
    """The weight of each answer, that of its row; 0 where there is none, (P, K)."""
    return batch.valid_PK * batch["weight_P"][:, None]


@no_grad
def judgement_metrics(reward_PK: Tensor, S_PK: Tensor, batch: Batch) -> dict[str, tuple[Tensor, Tensor | float]]:
    """Rewards and log-probabilities of good and bad answers, and of prompts with both how often the good one leads.

    All are weighted as the loss is.
    """
    total = {name: float(of.sum()) for name, of in _weights_of_kinds(batch).items()}
    there = _weights_of_kinds(batch.on(S_PK.device))
    found: dict[str, tuple[Tensor, Tensor | float]] = {}
    for side in ("chosen", "rejected"):
        if total[side]:
            found[f"rewards/{side}"] = ((reward_PK * there[side]).sum(), total[side])
            found[f"logps/{side}"] = ((S_PK * there[side]).sum(), total[side])
    if total["both"]:
        margin_P = reward_PK[:, 0] - reward_PK[:, 1]
        found["rewards/accuracies"] = ((ordered_right(margin_P) * there["both"]).sum(), total["both"])
        found["rewards/margins"] = ((margin_P * there["both"]).sum(), total["both"])
    return found


def _weights_of_kinds(batch: Batch) -> dict[str, Tensor]:
    """Weights of good and of bad answers, (P, K), and of prompts with both, (P,)."""
    weight_PK, good_PK = weights(batch), batch["good_PK"]
    both_P = (batch.valid_PK.sum(1) == 2) * batch["weight_P"]
    return {"chosen": weight_PK * good_PK, "rejected": weight_PK * ~good_PK, "both": both_P}
