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
from align.evaluation.statistics import ordered_right
from align.method.base import Experience, Loss, Optimization, RolloutPlan, State, require_positive
from align.method.online import OnlineMethod
from align.model.batch import Batch
from align.sampling.params import SamplingParams
from methods.pairwise_losses import dpo_loss
from methods.ppo.advantages import MissingEOS, require_no_reward, score_ends, spread
from methods.unpaired import response_sums

if TYPE_CHECKING:
    from torch import Tensor

    from align.model.policy import Policy
    from align.model.roles import Role

__all__ = ["OnlineDPO"]


@dataclass(frozen=True, kw_only=True)
class OnlineDPO(OnlineMethod):
    """On-line DPO: DPO on the best and the worst of the policy's own responses, as any scorer or judge has them."""

    responses: int = 2
    """Responses drawn for each prompt; at least 2."""
    beta: float = 0.1
    """Strength of the tie to the reference: the larger, the closer the policy stays."""
    temperature: float = 0.9
    """Sampling temperature."""
    top_p: float = 1.0
    """Nucleus sampling: the smallest set of tokens that has this probability; 1: all."""
    max_new_tokens: int = 64
    """Longest response, in tokens."""
    missing_eos: MissingEOS = "replace"
    """Score of a response that was cut off: ``replace`` it, ``subtract`` from it, or ``none`` (leave it)."""
    eos_score: float = -1.0
    """Replaces the score of such a response, or is added to it (then at most 0)."""
    minibatches: int = 1
    """Optimiser steps of a roll-out."""

    optimization: ClassVar[Optimization] = Optimization(
        learning_rate=3e-5, full_learning_rate=5e-7, epochs=1, batch_size=64, warmup=0.1, schedule="linear"
    )
    headline: ClassVar[str] = "rewards/accuracies"
    tie: ClassVar[str | None] = "beta"

    def check(self) -> None:
        """Ranges, and settings that contradict each other."""
        require_positive("OnlineDPO", beta=self.beta, temperature=self.temperature, minibatches=self.minibatches)
        if self.responses < 2:
            raise UserError(f"method.responses={self.responses}: a pair needs at least 2.")
        require_no_reward(self.missing_eos, self.eos_score)

    @property
    def frozen(self) -> tuple[Role, ...]:
        """The reference."""
        return ("reference",)

    @property
    def rollout(self) -> RolloutPlan:
        """Sampling, and the number of uses."""
        sampling = SamplingParams(temperature=self.temperature, top_p=self.top_p, max_new_tokens=self.max_new_tokens)
        return RolloutPlan(responses=self.responses, sampling=sampling, minibatches=self.minibatches)

    def ask_roles(self, policy: Policy, batch: Batch) -> Batch:
        """Add the reference's summed log-probabilities."""
        with policy.use("reference"):
            return batch.with_columns(reference_PK=response_sums(policy, batch))

    def compute_advantages(self, batch: Batch, state: State, total: Callable[[Tensor], Tensor]) -> Experience:
        """Keep the best and the worst response of each prompt, in this order; ``weight_P`` is 0 where all are alike."""
        del total
        score_PK = score_ends(batch["score_PK"], batch["ended_PK"], self.missing_eos, self.eos_score)
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
        """:func:`methods.pairwise_losses.dpo_loss` of the pairs."""
        policy_PK = response_sums(policy, batch)
        ratio_PK = policy_PK - batch["reference_PK"].to(policy_PK.device)
        weight_P = batch["weight_P"].to(policy_PK.device)
        h_P = ratio_PK[:, 0] - ratio_PK[:, 1]
        loss = (dpo_loss(h_P, self.beta) * weight_P).sum()
        reward_PK, pairs = self.beta * ratio_PK.detach(), weight_P.sum()
        return Loss(
            sums={"policy": loss},
            metrics={
                "loss": (loss.detach(), self.weight(batch)),
                "rewards/chosen": ((reward_PK[:, 0] * weight_P).sum(), pairs),
                "rewards/rejected": ((reward_PK[:, 1] * weight_P).sum(), pairs),
                "rewards/margins": ((self.beta * h_P.detach() * weight_P).sum(), pairs),
                "rewards/accuracies": ((ordered_right(h_P.detach()) * weight_P).sum(), pairs),
            },
        )
