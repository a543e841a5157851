"""DPO: direct preference optimisation (Rafailov et al. 2023), and its siblings that use a reference on pairs.

For a pair of a chosen response w and a rejected one l, S the summed log-probability, end-of-turn included::

    u = S_w − Sref_w,  v = S_l − Sref_l,  h = u − v
    L = mean over pairs of −log σ(βh)           loss_type=sigmoid; the others are in methods/dpo/losses.py

Departures from the papers: IPO uses averages per token instead of sums, the form its authors confirmed after
publication (``ipo_sums=True`` is the paper's text). ``hinge`` is the one of RSO, with a reference; it is not SLiC-HF.
AOT sorts the whole optimiser step, of all ranks, which costs a pass more. With LoRA, TR-DPO's soft update averages the
matrices A and B, which are its θ, not their product. The adapter's dropout is off, as in TRL: h
compares two models and is 0 before the first step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from align.method.base import Loss, sequence_sums
from methods.dpo.loss_table import Pairs, PairwiseLoss
from methods.dpo.scores import divergence_score, ld_sums, wpo_weights
from methods.dpo.settings import PairwiseSettings, require_scores
from methods.dpo.transport import with_quantiles
from methods.ranking import pair_metrics
from methods.step_means import with_pairs_per_token

if TYPE_CHECKING:
    from torch import Tensor

    from align.data import Preferences, TokenizedPreferences
    from align.method.base import Together
    from align.model.batch import Batch
    from align.model.policy import Policy
    from align.model.roles import Role


@dataclass(frozen=True, kw_only=True)
class DPO(PairwiseSettings):
    """Direct preference optimisation and 14 other losses on pairs against a reference: the first to try, no reward."""

    @property
    def frozen(self) -> tuple[Role, ...]:
        """The reference, unless it is asked before the first step alone, and needs no memory; or the one that moves."""
        return self.moved or (("reference",) if self.reference != "cached" else ())

    @property
    def moved(self) -> tuple[Role, ...]:
        """The anchor, a reference of the loss's own; evaluations still measure the distance from the start model."""
        return ("anchor",) if self.sync_steps else ()

    def cached_columns(self, passes: float) -> tuple[str, ...]:
        """The reference's summed log-probabilities, where they are wanted once, or would be asked for again."""
        again = self.reference == "auto" and passes > 1 and not self.sync_steps
        return ("reference_PK",) if self.reference == "cached" or again else ()

    def learns_from(self, data: Preferences) -> Preferences:
        """All rows; with ``soft_labels`` both answers of a pair must have scores."""
        if self.soft_labels is not None:
            require_scores(data.as_pairs())
        return data

    def doubts(self, data: TokenizedPreferences, steps: int) -> Sequence[str]:
        """A reference that never moves."""
        del data
        if self.sync_steps < steps:
            return ()
        return (
            f"the reference moves after every {self.sync_steps} steps and the run has {steps}, so it never does; lower "
            "method.sync_steps, raise trainer.epochs or trainer.steps, or leave method.sync_steps out.",
        )

    def begin(self, policy: Policy) -> None:
        """Start the moving reference at the policy."""
        if self.moved:
            policy.roles.copy("policy", "anchor")

    def before_step(self, policy: Policy, step: int) -> None:
        """``θ_ref ← (1 − α)·θ_ref + α·θ`` after every ``sync_steps`` steps (TR-DPO, Gorbatovski et al. 2024)."""
        if self.sync_steps and step > 1 and (step - 1) % self.sync_steps == 0:
            policy.roles.copy("policy", "anchor", self.sync_weight)

    def prepare(self, policy: Policy, batch: Batch) -> Batch:
        """Add the reference's summed log-probabilities."""
        if "reference_PK" in batch:
            return batch
        with policy.use(self._asked(policy)):
            logp_PKT = policy.logprobs(batch).logp_PKT
            return batch.with_columns(reference_PK=self._sums(logp_PKT, batch.on(logp_PKT.device)))

    def _asked(self, policy: Policy) -> Role:
        """The role that the loss refers to; of a cached one that is not kept, the policy before its first step."""
        if self.frozen:
            return self.frozen[0]
        return "reference" if "reference" in policy.roles.names else "policy"

    def prepare_step(self, policy: Policy, parts: Sequence[Batch], together: Together) -> Sequence[Batch]:
        """Add what only the whole step knows: places of sorted numbers, pairs per token of the chosen responses."""
        for name, loss in self.losses.items():
            if loss.sorts:
                parts = with_quantiles(parts, lambda part, name=name: self._sorted(name, policy, part), together)
        if "sft" in self.losses:
            parts = with_pairs_per_token(parts, together)
        return parts

    def _sorted(self, name: str, policy: Policy, batch: Batch) -> tuple[Tensor, Tensor]:
        """The two numbers of each pair that a loss sorts."""
        logp_PKT = policy.logprobs(batch).logp_PKT
        there = batch.on(logp_PKT.device)
        policy_PK, reference_PK = self._sums(logp_PKT, there), there["reference_PK"]
        if name == "aot":
            return policy_PK[:, 0] - policy_PK[:, 1], reference_PK[:, 0] - reference_PK[:, 1]
        return (policy_PK - reference_PK)[:, 0], (policy_PK - reference_PK)[:, 1]

    def loss(self, policy: Policy, batch: Batch) -> Loss:
        """The losses named by ``loss_type``, each pair weighted by ``weight_P``."""
        out = policy.logprobs(batch, squares=True) if self.wpo else policy.logprobs(batch)
        there = batch.on(out.logp_PKT.device)
        policy_PK = self._sums(out.logp_PKT, there)
        ratio_PK = policy_PK - there["reference_PK"]
        score_PK = divergence_score(ratio_PK, self.divergence, self.divergence_alpha)
        weight_P, nll_P = there["weight_P"], -sequence_sums(out.logp_PKT, there.mask_PKT)[:, 0]
        if "sft" in self.losses:
            nll_P = nll_P * there["pairs_per_token_P"]
        loss_P = torch.zeros_like(nll_P)
        for (name, loss), weight in zip(self.losses.items(), self.loss_weights or (1.0,), strict=True):
            loss_P = loss_P + weight * loss.of(self._pairs(name, loss, score_PK, policy_PK, nll_P, there))
        if out.squares_PKT is not None:
            loss_P = loss_P * wpo_weights(out.logp_PKT, out.squares_PKT, there.mask_PKT)
        total = (loss_P * weight_P).sum()
        metrics = pair_metrics(self.beta * ratio_PK.detach(), policy_PK.detach(), weight_P)
        return Loss(sums={"policy": total}, metrics={"loss": (total.detach(), self.weight(batch)), **metrics})

    def _pairs(
        self, name: str, loss: PairwiseLoss, score_PK: Tensor, policy_PK: Tensor, nll_P: Tensor, batch: Batch
    ) -> Pairs:
        """The arguments of a loss."""
        if loss.per_token and not (name == "ipo" and self.ipo_sums):
            score_PK = score_PK / batch.length_PK
        u, v = score_PK.unbind(1)
        quantiles = u, v
        if loss.sorts:
            below, above = batch["quantile_PK"].unbind(1)
            quantiles = (policy_PK[:, 0] - policy_PK[:, 1], below) if name == "aot" else (below, above)
        label = self._label(loss, batch, u.dtype)
        return Pairs(u=u, v=v, beta=self.beta, label=label, tau=self.discopop_tau, nll=nll_P, quantiles=quantiles)

    def _label(self, loss: PairwiseLoss, batch: Batch, dtype: torch.dtype) -> float | Tensor:
        """Log-odds of the labels: of the share of flipped ones, or what the scores of each pair say."""
        if self.soft_labels is not None and loss.smoothing:
            return ((batch["score_PK"][:, 0] - batch["score_PK"][:, 1]) / self.soft_labels).to(dtype)
        epsilon = (loss.smoothing if self.label_smoothing is None else self.label_smoothing) or 0.0
        return math.log((1 - epsilon) / epsilon) if epsilon else math.inf

    def _sums(self, logp_PKT: Tensor, batch: Batch) -> Tensor:
        return ld_sums(logp_PKT, batch.mask_PKT, self.ld_alpha)
