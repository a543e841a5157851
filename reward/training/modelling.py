"""Reward modelling: a scalar per response, trained to be larger for preferred responses.

The model is Bradley–Terry: ``P(w ≻ l) = σ(r_w − r_l)`` (Bradley & Terry 1952; Ouyang et al. 2022, eq. 1). The scalar
is read at the last response token by a head without bias. All comparisons of a prompt are one element of the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from align.errors import UserError
from align.evaluation.statistics import ordered_right
from align.method.base import Loss, Method, Optimization, compared, require_not_negative, weighted_metrics
from align.model.batch import Batch
from align.scoring.reward_role import role_scores
from align.system.lazy import no_grad
from reward.training.calibration import FEWEST, Comparison, assess, plot_reliability

if TYPE_CHECKING:
    from torch import Tensor

    from align.data import Example, TokenizedPreferences, Unit
    from align.model.policy import Policy
    from align.model.roles import Role


_REFERENCES = 10_000  # responses scored for the normalisation


def bradley_terry_loss(
    reward_PK: Tensor, better_PKK: Tensor, *, margin_P: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Mean over the comparisons of each prompt of ``−(1−ε)·log σ(Δ) − ε·log σ(−Δ)`` with ``Δ = r_i − r_j − m``; (P,).

    A prompt with K ranked responses has C(K, 2) comparisons, each of weight ``1/C(K, 2)``: treating them as
    independent samples overfits within an epoch (Ouyang et al. 2022, section 3.5).

    Args:
        reward_PK: Scalar rewards.
        better_PKK: True at (p, i, j) where response i was preferred to j; a prompt without any has loss 0.
        margin_P: ``m`` ≥ 0, the lead that the preferred response must have (Touvron et al. 2023); default 0.
        label_smoothing: ε in [0, ½), the assumed share of flipped labels.
    """
    assert reward_PK.shape == better_PKK.shape[:2]
    delta_PKK = reward_PK[:, :, None] - reward_PK[:, None, :]
    if margin_P is not None:
        delta_PKK = delta_PKK - margin_P[:, None, None]
    loss_PKK = -(1 - label_smoothing) * torch.nn.functional.logsigmoid(delta_PKK)
    if label_smoothing:
        loss_PKK = loss_PKK - label_smoothing * torch.nn.functional.logsigmoid(-delta_PKK)
    comparisons_P = better_PKK.sum((1, 2)).clamp(min=1)
    return torch.where(better_PKK, loss_PKK, 0).sum((1, 2)) / comparisons_P


@dataclass(frozen=True, kw_only=True)
class RewardModel(Method):
    """Reward modelling: a scalar for every response, trained on the comparisons (Bradley-Terry)."""

    label_smoothing: float = 0.0
    """Assumed share ε of flipped labels, 0 to below 0.5."""
    centring: float = 0.0
    """Weight of ``mean (r_i + r_j)²`` over the comparisons, which keeps rewards near 0; 0.01 is usual."""
    unit_variance: bool = False
    """After training, divide by the standard deviation too; the mean is always subtracted."""

    unit: ClassVar[Unit] = "ranking"
    optimization: ClassVar[Optimization] = Optimization(
        learning_rate=1e-4, full_learning_rate=9e-6, epochs=1, batch_size=16, warmup=0.05
    )
    headline: ClassVar[str] = "accuracy"

    def check(self) -> None:
        """Ranges, and settings that contradict each other."""
        if not 0 <= self.label_smoothing < 0.5:
            raise UserError(f"method.label_smoothing={self.label_smoothing}: must be in [0, 0.5).")
        require_not_negative(centring=self.centring)

    @property
    def trains(self) -> tuple[Role, ...]:
        """Only the reward role."""
        return ("reward",)

    def weight(self, batch: Batch) -> float:
        """Return the sum of the weights of the prompts with a comparison."""
        compared_P = batch["better_PKK"].any((1, 2))
        return float((batch["weight_P"] * compared_P).sum())

    def loss(self, policy: Policy, batch: Batch) -> Loss:
        """See :func:`bradley_terry_loss`; the margin comes from the data, 0 if it has none."""
        reward_PK = policy.scalars(batch)
        there = batch.on(reward_PK.device)
        better_PKK, weight_P, margin_P = there["better_PKK"], there["weight_P"], there["margin_P"].nan_to_num(0.0)
        loss_P = bradley_terry_loss(reward_PK, better_PKK, margin_P=margin_P, label_smoothing=self.label_smoothing)
        if self.centring:
            loss_P = loss_P + self.centring * centring_penalty(reward_PK, better_PKK)
        loss = (loss_P * weight_P).sum()
        return Loss(
            sums={"reward": loss},
            metrics={"loss": (loss.detach(), self.weight(batch)), **_metrics(reward_PK.detach(), better_PKK, weight_P)},
        )

    @no_grad
    def report(
        self, policy: Policy, train: TokenizedPreferences, heldout: TokenizedPreferences | None, folder: Path | None
    ) -> dict[str, Any]:
        """Normalise the rewards to mean 0 over the preferred training responses, then assess held-out pairs."""
        normalize(policy, train, unit_variance=self.unit_variance)
        if heldout is None or not len(heldout):
            return {}
        comparisons = list(_comparisons(policy, heldout))
        if not comparisons:
            return {}
        report = assess(comparisons)
        if folder is not None:
            plot_reliability(report, folder / "reliability.png")
        shown = ("accuracy", "expected_calibration_error", "calibration_error_if_calibrated", "temperature")
        notes = (
            [f"{len(comparisons)} held-out comparisons are too few to fit a temperature: it takes at least {FEWEST}."]
            if report["temperature"] is None
            else []
        )
        return {
            "metrics": {name: {"before": None, "after": report[name]} for name in shown},
            "intervals": {"accuracy": {"after": report["interval"]}},
            "notes": notes,
            "reward_model": report,
        }


def normalize(policy: Policy, data: TokenizedPreferences, *, unit_variance: bool = False) -> None:
    """Set the mean (and standard deviation) of the reward head to those of the preferred responses' rewards.

    The mean reward of demonstrations is then 0 (Ouyang et al. 2022, appendix C.2). At most 10,000 responses are scored,
    spread evenly over the data: the standard error of the mean is then a hundredth of the standard deviation.
    """
    head = policy.roles.heads["reward"]
    head.mean, head.std = 0.0, 1.0
    chosen = np.unique(np.linspace(0, len(data) - 1, min(len(data), _REFERENCES)).astype(int)).tolist()
    preferred = [
        replace(example, responses=example.responses[:1], scores=example.scores[:1], comparisons=())
        for example in (data[i] for i in chosen)
    ]
    rewards = torch.tensor([reward for (reward,) in score_examples(policy, preferred, phase="normalising")])
    head.mean = rewards.mean().item()
    if unit_variance and (deviation := rewards.std().item()) > 0:
        head.std = deviation


def score_examples(policy: Policy, examples: Sequence[Example], *, phase: str | None = None) -> list[list[float]]:
    """Return the reward role's scalar of every response of every example; ``phase``: see `Policy.in_micro_batches`."""
    return role_scores(policy, Batch.from_examples(examples), phase=phase)


def _comparisons(policy: Policy, data: TokenizedPreferences) -> Iterator[Comparison]:
    examples = [data[i] for i in range(len(data))]
    for example, rewards in zip(examples, score_examples(policy, examples, phase="held-out pairs"), strict=True):
        for better, worse in example.comparisons:
            high, low = example.scores[better], example.scores[worse]
            yield Comparison(
                delta=rewards[better] - rewards[worse],
                prompt=example.index,
                longer=len(example.responses[better]) - len(example.responses[worse]),
                gap=None if high is None or low is None else high - low,
                source=example.source,
            )


def centring_penalty(reward_PK: Tensor, better_PKK: Tensor) -> Tensor:
    """Return ``mean (r_i + r_j)²`` over the comparisons of each prompt; (P,)."""
    squares_PKK = (reward_PK[:, :, None] + reward_PK[:, None, :]) ** 2
    return torch.where(better_PKK, squares_PKK, 0).sum((1, 2)) / better_PKK.sum((1, 2)).clamp(min=1)


def _metrics(reward_PK: Tensor, better_PKK: Tensor, weight_P: Tensor) -> dict[str, tuple[Tensor, Tensor | float]]:
    """Metrics under TRL's names, over comparisons with the weights of their prompts; a tie counts half."""
    high_PKK, low_PKK = compared(reward_PK, better_PKK)
    values = {
        "accuracy": ordered_right(high_PKK - low_PKK),
        "margin": high_PKK - low_PKK,
        "rewards/chosen": high_PKK,
        "rewards/rejected": low_PKK,
    }
    return weighted_metrics(values, weight_P[:, None, None] * better_PKK)
