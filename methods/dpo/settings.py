"""The settings of DPO and its losses, and which of them go together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from align.errors import UserError
from align.method.base import Optimization, PairwiseMethod, require_effect, require_positive
from align.settings.type_checks import Share
from methods.dpo.loss_table import LOSSES, LossName, PairwiseLoss
from methods.dpo.scores import Divergence
from methods.from_candidates import PairsAgainstReference

if TYPE_CHECKING:
    from align.data import Preferences


@dataclass(frozen=True, kw_only=True)
class PairwiseSettings(PairsAgainstReference, PairwiseMethod):
    """The fields of :class:`methods.dpo.dpo.DPO`."""

    beta: float = 0.1
    """Strength of the tie to the reference: the larger, the closer the policy stays."""
    loss_type: LossName | tuple[LossName, ...] = "sigmoid"
    """``sigmoid`` (DPO), ``cdpo`` or ``robust`` (noisy labels), ``ipo``, ``hinge``, … or a list of them to be added."""
    loss_weights: tuple[float, ...] = ()
    """Weights of the losses where ``loss_type`` is a list; MPO: [sigmoid,bco_pair,sft] with [0.8,0.2,1]."""
    label_smoothing: float | None = None
    """Assumed share ε of flipped labels, below 0.5; null: .1 (``cdpo``, ``robust``), .001 (``exo_pair``), 0 (AOT)."""
    soft_labels: float | None = None
    """Of ``cdpo``, ``exo_pair``: ε of each pair is σ(−(difference of its scores)/this); null: scores are not read."""
    divergence: Divergence = "reverse_kl"
    """From the reference: ``reverse_kl`` (DPO), ``forward_kl``, ``js``, or ``alpha`` (f-DPO)."""
    divergence_alpha: float = 0.5
    """Order α of ``divergence=alpha``; towards 1 it is ``reverse_kl``, towards 0 ``forward_kl``."""
    ld_alpha: Share = 1.0
    """Weight of the longer response's tokens past the end of the shorter (LD-DPO); 1: DPO, .5: less length."""
    wpo: bool = False
    """Weigh each pair by how likely the policy is to write it (WPO), for pairs that another model wrote."""
    ipo_sums: bool = False
    """IPO on summed log-probabilities, as in the paper, instead of averages per token."""
    discopop_tau: float = 0.05
    """Temperature τ of the modulation in ``discopop``."""
    reference: Literal["auto", "live", "cached"] = "auto"
    """Asked in each step (``live``), or once, before the first (``cached``); ``auto``: once, if pairs are met again."""
    sync_steps: int = 0
    """TR-DPO: every so many steps the loss's reference moves to the policy; 0: it stays the start model."""
    sync_weight: float = 1.0
    """Weight of the policy in that move: 1 replaces the reference (hard), below it is an average (soft)."""

    optimization: ClassVar[Optimization] = Optimization(
        learning_rate=1e-4, full_learning_rate=1e-6, epochs=1, batch_size=16, warmup=0.1
    )
    headline: ClassVar[str] = "rewards/accuracies"
    tie: ClassVar[str | None] = "beta"
    dropout: ClassVar[bool] = False

    @property
    def losses(self) -> dict[str, PairwiseLoss]:
        """The losses of ``loss_type``."""
        names = (self.loss_type,) if isinstance(self.loss_type, str) else self.loss_type
        return {name: LOSSES[name] for name in names}

    def check(self) -> None:
        """Ranges, and settings that contradict each other."""
        super().check()
        require_positive("DPO", beta=self.beta, discopop_tau=self.discopop_tau, divergence_alpha=self.divergence_alpha)
        several = not isinstance(self.loss_type, str)
        if several and not (0 < len(self.losses) == len(self.loss_type) == len(self.loss_weights)):
            raise UserError(
                f"method.loss_type={list(self.loss_type)} needs different losses and as many weights; write "
                "method.loss_type=[sigmoid,sft] method.loss_weights=[1,0.1]."
            )
        require_effect(self, several, "a list in method.loss_type", "loss_weights")
        if several and not (min(self.loss_weights) >= 0 and 0 < sum(self.loss_weights) < math.inf):
            raise UserError(
                f"method.loss_weights={list(self.loss_weights)}: must be finite numbers of at least 0, and one of them "
                "above 0."
            )
        self._check_labels()
        for name, loss in self.losses.items():
            if self.divergence != "reverse_kl" and not loss.of_difference:
                raise UserError(
                    f"method.divergence={self.divergence} is not defined for method.loss_type={name}, which is no "
                    "function of the difference of two scores; take sigmoid, or leave method.divergence out."
                )
            if self.wpo and loss.sorts:
                raise UserError(f"method.wpo=true weighs pairs, but method.loss_type={name} takes them apart.")
        if list(self.losses) == ["sft"]:
            raise UserError(
                "method.loss_type=sft is no loss on pairs; take method=sft, or a list such as [sigmoid,sft]."
            )
        require_effect(self, "ipo" in self.losses, "method.loss_type=ipo", "ipo_sums")
        require_effect(self, "discopop" in self.losses, "method.loss_type=discopop", "discopop_tau")
        if self.sync_steps < 0 or not 0 < self.sync_weight <= 1:
            raise UserError(
                f"method.sync_steps={self.sync_steps} method.sync_weight={self.sync_weight:g}: steps must be at least "
                "0, the weight above 0 and at most 1."
            )
        if self.sync_steps and self.reference == "cached":
            raise UserError("method.sync_steps moves the reference; leave method.reference=cached out.")
        require_effect(self, self.sync_steps > 0, "method.sync_steps", "sync_weight")
        require_effect(self, self.divergence == "alpha", "method.divergence=alpha", "divergence_alpha")

    def _check_labels(self) -> None:
        noisy = "method.loss_type=cdpo, robust, exo_pair, aot or aot_unpaired"
        require_effect(self, any(x.smoothing is not None for x in self.losses.values()), noisy, "label_smoothing")
        if self.label_smoothing is not None and not 0 <= self.label_smoothing < 0.5:
            raise UserError(f"method.label_smoothing={self.label_smoothing}: must be in [0, 0.5).")
        for name, loss in self.losses.items():
            if loss.smoothing and self.label_smoothing == 0:
                raise UserError(
                    f"method.loss_type={name} needs method.label_smoothing above 0, the assumed share of flipped "
                    f"labels; leave it out for {loss.smoothing:g}, or take method.loss_type=sigmoid."
                )
        if self.soft_labels is not None:
            require_positive("DPO", soft_labels=self.soft_labels)
            soft = "method.loss_type=cdpo or exo_pair"
            require_effect(self, not self.losses.keys().isdisjoint(("cdpo", "exo_pair")), soft, "soft_labels")
            if self.label_smoothing is not None or "robust" in self.losses:
                raise UserError("method.soft_labels takes the place of method.label_smoothing and of loss_type=robust.")


def require_scores(data: Preferences) -> None:
    """Check that both answers of each pair have a score.

    Raises:
        UserError: One lacks it; with its place.
    """
    sides = ("chosen", "rejected")
    columns = (data.dataset[name] for name in (*sides, *(f"{side}_score" for side in sides), "place"))
    for chosen, rejected, *scores, place in zip(*columns, strict=True):
        if chosen and rejected and None in scores:
            raise UserError(
                f"method.soft_labels reads the scores of both answers, but {sides[scores.index(None)]}_score is "
                f"missing at {place}; leave such rows out, or take method.label_smoothing instead."
            )
