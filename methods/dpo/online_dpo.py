"""On-line DPO: pairs of the policy's own responses, picked by a scorer or a judge (Guo et al. 2024, "OAIF").

For K responses to a prompt, drawn by the policy as it is now and scored::

    w, l = the best and the worst of them
    h    = (S_w − S_l) − (Sref_w − Sref_l)        S: summed log-probability, end-of-turn included
    L    = mean over prompts of −log σ(βh)        0 where all score alike

What learns from pairs off-line drifts away from where they were drawn; here they are always the policy's own.

Departures: the paper's annotator is a language model that is asked about two responses; here it is whatever scores
(``reward=``), a judge too. Log-probabilities are taken at temperature 1, whatever the responses are drawn at. A
response that was cut off gets the score −1, as in PPO here (``missing_eos=none`` leaves it its own).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from align.errors import UserError
from align.method.base import Experience, Loss, Optimization, State, require_positive, response_sums
from align.model.batch import Batch
from methods.dpo.losses import dpo_loss
from methods.from_rollouts import RolloutMethod
from methods.ppo.advantages import spread
from methods.ranking import pair_metrics

if TYPE_CHECKING:
    from torch import Tensor

    from align.model.policy import Policy

__all__ = ["OnlineDPO"]


@dataclass(frozen=True, kw_only=True)
class OnlineDPO(RolloutMethod):
    """On-line DPO: DPO on the best and the worst of the policy's own responses, as any scorer or judge has them."""

    responses: int = 2
    """Responses drawn for each prompt; at least 2."""
    beta: float = 0.1
    """Strength of the tie to the reference: the larger, the closer the policy stays."""
    temperature: float = 0.9
    """Sampling temperature."""

    optimization: ClassVar[Optimization] = Optimization(
        learning_rate=3e-5, full_learning_rate=5e-7, epochs=1, batch_size=64, warmup=0.1, schedule="linear"
    )
    headline: ClassVar[str] = "rewards/accuracies"
    tie: ClassVar[str | None] = "beta"

    def check(self) -> None:
        """Ranges, and settings that contradict each other."""
        super().check()
        require_positive("OnlineDPO", beta=self.beta)
        if self.responses < 2:
            raise UserError(f"method.responses={self.responses}: a pair needs at least 2.")

    def ask_roles(self, policy: Policy, batch: Batch) -> Batch:
        """Add the reference's summed log-probabilities."""
        with policy.use("reference"):
            return batch.with_columns(reference_PK=response_sums(policy, batch))

    def compute_advantages(self, batch: Batch, state: State, total: Callable[[Tensor], Tensor]) -> Experience:
        """Keep the best and the worst response of each prompt, in this order; ``weight_P`` is 0 where all are alike."""
        del total
        score_PK = self.score_ends(batch["score_PK"], batch["ended_PK"])
        apart_P = spread(score_PK, batch.valid_PK)
        order_PK = score_PK.argsort(dim=-1, descending=True, stable=True)[:, [0, -1]]
        responses = tuple(
            (row[best], row[worst]) for row, (best, worst) in zip(batch.response_ids, order_PK.tolist(), strict=True)
        )
        pairs = Batch(batch.prompt_ids, responses, batch.rows).with_columns(
            reference_PK=batch["reference_PK"].gather(1, order_PK), weight_P=(apart_P > 0).float()
        )
        count = float(batch.valid_PK.sum())
        metrics = {
            "objective/scores": (score_PK.sum(), count),
            "pairs/ties": ((apart_P == 0).sum(), float(batch.P)),
            "pairs/apart": (apart_P.sum(), float(batch.P)),
        }
        return Experience(pairs, metrics, state)

    def weight(self, batch: Batch) -> float:
        """Prompts: one whose responses score alike counts, and teaches nothing."""
        return float(batch.P)

    def loss(self, policy: Policy, batch: Batch) -> Loss:
        """:func:`methods.dpo.losses.dpo_loss` of the pairs."""
        policy_PK = response_sums(policy, batch)
        there = batch.on(policy_PK.device)
        ratio_PK, weight_P = policy_PK - there["reference_PK"], there["weight_P"]
        loss = (dpo_loss(ratio_PK[:, 0] - ratio_PK[:, 1], self.beta) * weight_P).sum()
        metrics = pair_metrics(self.beta * ratio_PK.detach(), policy_PK.detach(), weight_P)
        return Loss(sums={"policy": loss}, metrics={"loss": (loss.detach(), self.weight(batch)), **metrics})
