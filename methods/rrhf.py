"""RRHF: rank responses to align with human feedback (Yuan et al. 2023).

With ``p_i = (1/T_i)·Σ_t logp_t``, the model's own score of response i, end-of-turn included::

    L = Σ_{r_i<r_j} max(0, p_i − p_j) − Σ_t logp_t(best response)         the mean over prompts

Training needs no reward model and no value model, and no reference unless ``kl_coef`` is above 0.

Departures from the paper: the order comes from the comparisons of the data, which scores decide where it has them, so
that pairs without any score (K=2) and incomplete rankings train as well. ``form="code"`` is the authors' code in its
denominator, per prompt: there L_ft is a mean over the padded row of the best response, prompt and padding counted.
Their code also changes the labels in place before it counts them, which divides every ``p_i`` of a query by the length
of that row instead of its own; that is not reproduced. Nor is the default of 100 for their ``rrhf_weight``, which their
scripts set to 1. Candidates are random samples; ``temperature=0, diversity_penalty=1.0`` gives the authors'
diverse beam search; the temperature of .8 that their script sets has no effect on it in transformers. The KL term is
an addition: the authors saw online sampling without one exploit the reward model.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from align.evaluation.statistics import Estimate, ordered_right, rate
from align.method.base import Loss, Optimization, require_not_negative, sequence_sums
from align.model.batch import Batch
from align.system.lazy import no_grad
from methods.from_candidates import CandidateMethod
from methods.ranking import best_response, comparison_metrics

if TYPE_CHECKING:
    from torch import Tensor

    from align.data import TokenizedPreferences, Unit
    from align.model.policy import Policy
    from align.model.roles import Role

Form = Literal["paper", "code"]


def rank_loss(p_PK: Tensor, better_PKK: Tensor) -> Tensor:
    """``L_rank = Σ_{r_i<r_j} max(0, p_i − p_j)`` (Yuan et al. 2023): a sum, without a margin; (P,).

    Args:
        p_PK: Length-normalised log-probabilities in nats per token.
        better_PKK: True at (p, j, i) where response j was preferred to response i; ties are True at neither.
    """
    assert better_PKK.shape == (*p_PK.shape, p_PK.shape[1])
    excess_PKK = torch.relu(p_PK[:, None, :] - p_PK[:, :, None])
    return torch.where(better_PKK, excess_PKK, 0).sum((1, 2))


def kl_penalty(logp_PKT: Tensor, reference_logp_PKT: Tensor, mask_PKT: Tensor) -> Tensor:
    """``Σ_t (e^d_t − 1 − d_t)`` with ``d = logp_ref − logp``, averaged over the responses of each prompt; (P,).

    It is Schulman's k3 ("Approximating KL Divergence", 2020): never negative, 0 only at the reference. On responses
    that the policy sampled itself it estimates ``KL(π‖π_ref)`` in nats per response; on others it penalises moving
    away from the reference on them.

    Args:
        logp_PKT: Token log-probabilities of the policy, in nats.
        reference_logp_PKT: The same of the reference.
        mask_PKT: Where a response token exists.
    """
    assert logp_PKT.shape == reference_logp_PKT.shape == mask_PKT.shape
    d_PKT = torch.where(mask_PKT, reference_logp_PKT - logp_PKT, 0)
    return (torch.expm1(d_PKT) - d_PKT).sum((1, 2)) / mask_PKT.any(2).sum(1)


@dataclass(frozen=True, kw_only=True)
class RRHF(CandidateMethod):
    """RRHF: ranks responses by their average log-probability, and learns the best one; no reference model.

    The loss is ``rank_weight·L_rank + L_ft + kl_coef·KL``, the mean over prompts. ``L_ft = −S(best)``, S the summed
    log-probability; ``form="code"`` divides it by the prompt's tokens plus those of its longest response.
    """

    rank_weight: float = 1.0
    """Weight of the ranking loss; 0 leaves fine-tuning on the best responses."""
    form: Form = "paper"
    """``paper`` sums the log-probabilities of the best response, ``code`` averages them over the padded row."""
    kl_coef: float = 0.0
    """Weight of a penalty on leaving the reference, in nats per response; above 0 a reference is kept."""
    temperature: float = 0.8
    """Sampling temperature of the candidates; 0 with a ``diversity_penalty``."""
    include_data: bool = True
    """Use the responses of the data as candidates too."""

    unit: ClassVar[Unit] = "ranking"
    optimization: ClassVar[Optimization] = Optimization(
        learning_rate=2e-4, full_learning_rate=2e-5, epochs=3, batch_size=64, warmup=0.03
    )
    headline: ClassVar[str] = "rewards/accuracies"
    tie: ClassVar[str | None] = "kl_coef"

    def check(self) -> None:
        """Ranges, and settings that contradict each other."""
        require_not_negative(rank_weight=self.rank_weight, kl_coef=self.kl_coef)
        super().check()

    @property
    def frozen(self) -> tuple[Role, ...]:
        """The reference, if the policy is held to it."""
        return ("reference",) if self.kl_coef else ()

    def prepare(self, policy: Policy, batch: Batch) -> Batch:
        """Add the reference's log-probabilities, if the policy is held to it."""
        if not self.kl_coef:
            return batch
        with policy.use("reference"):
            return batch.with_columns(reference_logp_PKT=policy.logprobs(batch).logp_PKT)

    def weight(self, batch: Batch) -> float:
        """The summed weights of the prompts; one whose responses are all tied still has its fine-tuning loss."""
        return float(batch["weight_P"].sum())

    def loss(self, policy: Policy, batch: Batch) -> Loss:
        """See :func:`rank_loss` and :func:`kl_penalty`."""
        logp_PKT = policy.logprobs(batch).logp_PKT
        best_P = best_response(batch["better_PKK"], batch.valid_PK)
        there = batch.with_columns(best_P=best_P, row_length_P=_row_length(batch)).on(logp_PKT.device)
        mask_PKT, weight_P, better_PKK = there.mask_PKT, there["weight_P"], there["better_PKK"]
        S_PK = sequence_sums(logp_PKT, mask_PKT)
        p_PK = _average(S_PK, there)
        terms = {"rank": rank_loss(p_PK, better_PKK), "sft": -S_PK.gather(1, there["best_P"][:, None])[:, 0]}
        if self.form == "code":
            terms["sft"] = terms["sft"] / there["row_length_P"]
        loss_P = self.rank_weight * terms["rank"] + terms["sft"]
        if self.kl_coef:
            terms["kl"] = kl_penalty(logp_PKT, there["reference_logp_PKT"], mask_PKT)
            loss_P = loss_P + self.kl_coef * terms["kl"]
        loss = (loss_P * weight_P).sum()
        weight = self.weight(batch)
        return Loss(
            sums={"policy": loss},
            metrics={
                "loss": (loss.detach(), weight),
                **{f"loss/{name}": ((term_P.detach() * weight_P).sum(), weight) for name, term_P in terms.items()},
                **comparison_metrics(p_PK.detach(), better_PKK, weight_P),
            },
        )

    @no_grad
    def report(
        self, policy: Policy, train: TokenizedPreferences, heldout: TokenizedPreferences | None, folder: Path | None
    ) -> dict[str, Any]:
        """Accuracy of ``p_i`` as a reward model on held-out comparisons; "before" only if a reference was kept.

        With candidates also ``reward_best``, the mean reward of the best one: the aim for the policy's own responses.
        """
        report = dict(super().report(policy, train, heldout, folder))
        if heldout is None or not len(heldout):
            return report
        accuracy = {
            when: _likelihood_accuracy(policy, role, heldout) if role in policy.roles.names else None
            for when, role in (("before", "reference"), ("after", "policy"))
        }
        known = {when: estimate for when, estimate in accuracy.items() if estimate is not None}
        return {
            **report,
            "metrics": {
                "likelihood_accuracy": {when: known[when].mean if when in known else None for when in accuracy}
            },
            "intervals": {"likelihood_accuracy": {when: asdict(estimate) for when, estimate in known.items()}},
        }


def _likelihood_accuracy(policy: Policy, role: Role, data: TokenizedPreferences) -> Estimate | None:
    """Share of the comparisons in which the preferred response has the larger ``p_i``; None without any."""

    def ask(part: Batch) -> Batch:
        logp_PKT = policy.logprobs(part).logp_PKT
        there = part.on(logp_PKT.device)
        return part.with_columns(mean_PK=_average(sequence_sums(logp_PKT, there.mask_PKT), there))

    with policy.use(role):
        done = policy.in_micro_batches(Batch.from_examples(data), ask, phase="likelihoods")
    better_PKK, mean_PK = done["better_PKK"], done["mean_PK"]
    right = ordered_right((mean_PK[:, :, None] - mean_PK[:, None, :])[better_PKK])
    prompts = data.questions()
    asked = [prompts[p] for p in better_PKK.nonzero()[:, 0].tolist()]
    return rate(right.tolist(), asked) if asked else None


def _average(S_PK: Tensor, batch: Batch) -> Tensor:
    """``p_i = S_i / T_i``; 0 where there is no response."""
    return S_PK / batch.length_PK.clamp(min=1)


def _row_length(batch: Batch) -> Tensor:
    """Tokens of a padded row of each prompt: the prompt and its longest response; (P,)."""
    prompts = torch.tensor([len(ids) for ids in batch.prompt_ids])
    return prompts + batch.length_PK.max(1).values
