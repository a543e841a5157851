"""What a method is: hyper-parameters in a frozen dataclass, and a loss over ``logp_PKT``.

The trainer asks a method, for each optimiser step::

    micro_batches = [method.prepare(policy, part) for part in batch.micro_batches(...)]   # no gradients
    weight = sum(method.weight(part) for part in micro_batches)                            # over all ranks
    for role in method.trains:
        with policy.use(role):
            for part in micro_batches:
                (method.loss(policy, part).sums[role] / weight).backward()

A loss is a *sum*; the trainer divides it by the step-wide weight, so that the size of micro-batches, accumulation and
the number of ranks never change the result.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from align.errors import UserError
from align.settings.checking import Settings

if TYPE_CHECKING:
    from align.candidates.plan import CandidatePlan
    from align.data import Preferences, TokenizedPreferences, Unit
    from align.model.batch import Batch
    from align.model.policy import Policy
    from align.model.roles import Role


Metrics = Mapping[str, "tuple[Tensor, Tensor | float]"]


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """The default optimisation setting of a method; ``align.settings.config.TrainerConfig`` overrides each of them."""

    learning_rate: float
    """Peak learning rate for LoRA."""
    full_learning_rate: float
    """Peak learning rate when all parameters are trained (about a tenth)."""
    epochs: float = 1.0
    batch_size: int = 16
    """Prompts per optimiser step, over all ranks and micro-batches."""
    warmup: float = 0.1
    """Share of the steps in which the learning rate rises from 0."""
    schedule: str = "cosine"


@dataclass(frozen=True)
class Loss:
    """A loss on one micro-batch."""

    sums: Mapping[Role, Tensor]
    """Per trained role the un-normalised sum, a scalar with gradient."""
    metrics: Mapping[str, tuple[Tensor, Tensor | float]] = field(
        default_factory=dict[str, "tuple[Tensor, Tensor | float]"]
    )
    """Name → (sum, weight): logged as Σsum / Σweight over micro-batches and ranks."""


class Method(Settings, ABC):
    """Base of all methods. Subclasses are frozen dataclasses whose fields are the hyper-parameters.

    The types and choices of the fields are checked when one is built; ``check`` adds ranges and contradictions.
    """

    unit: ClassVar[Unit]
    """What one example is: a demonstration (K=1), a pair (K=2), a ranking (any K) or a bare prompt (K=0)."""
    optimization: ClassVar[Optimization]
    headline: ClassVar[str] = "loss"
    """The metric shown in the progress bar beside the loss."""

    @property
    def trains(self) -> tuple[Role, ...]:
        """The roles whose weights the loss changes."""
        return ("policy",)

    @property
    def frozen(self) -> tuple[Role, ...]:
        """The roles that are asked but never trained."""
        return ()

    @property
    def roles(self) -> tuple[Role, ...]:
        """Every role this method asks, trained or frozen."""
        return (*self.trains, *self.frozen)

    @property
    def candidates(self) -> CandidatePlan | None:
        """What is drawn and scored before training (:mod:`align.candidates.drawing`), to be trained on; usually
        nothing."""
        return None

    @property
    def needs_reward(self) -> bool:
        """Whether responses that are drawn must be scored, before training or while it trains."""
        return self.candidates is not None and self.candidates.scored

    @property
    def generates(self) -> bool:
        """Whether what it trains answers the prompts of the data, so that its answers can be evaluated."""
        return "policy" in self.trains

    @property
    def cached_columns(self) -> tuple[str, ...]:
        """Columns :meth:`precompute` makes once for the whole dataset, before the first step; usually none."""
        return ()

    def learns_from(self, data: Preferences) -> Preferences:
        """The rows it learns from, made of those of the data before they are tokenised; usually the same."""
        return data

    def begin(self, policy: Policy) -> None:
        """Before a new run: change roles from what they begin with. Not called when a run is resumed."""
        del policy

    def precompute(self, policy: Policy, batch: Batch) -> Batch:
        """Add the ``cached_columns``, computed by the policy as it was at the start. Runs without gradients."""
        del policy
        return batch

    def prepare(self, policy: Policy, batch: Batch) -> Batch:
        """Add what the loss needs and gradients do not flow through (reference log-probabilities, advantages)."""
        del policy
        return batch

    def report(
        self, policy: Policy, train: TokenizedPreferences, heldout: TokenizedPreferences | None, folder: Path | None
    ) -> Mapping[str, Any]:
        """After the last step: set in the roles what training does not, and report for ``evaluation.json``.

        Every rank calls it and must come to the same; ``folder`` is the run's for pictures, on rank 0 only.
        """
        del policy, train, heldout, folder
        return {}

    @abstractmethod
    def weight(self, batch: Batch) -> float:
        """The denominator this micro-batch contributes, known before any forward (tokens, pairs)."""

    @abstractmethod
    def loss(self, policy: Policy, batch: Batch) -> Loss:
        """The loss sum on a prepared micro-batch."""


class PairwiseMethod(Method):
    """A method over pairs: response 0 is the chosen one, response 1 the rejected one; each pair weighs ``weight_P``."""

    unit: ClassVar[Unit] = "pair"

    def weight(self, batch: Batch) -> float:
        """The summed weights of the pairs: a plain count where the data gives none."""
        return float(batch["weight_P"].sum())


def sequence_sums(logp_PKT: Tensor, mask_PKT: Tensor) -> Tensor:
    """``S = Σ_t logp_t`` over response tokens, end-of-turn included; (P, K), nats."""
    return torch.where(mask_PKT, logp_PKT, 0).sum(-1)


def require_not_negative(**fields: float) -> None:
    """Check hyper-parameters at construction.

    Raises:
        UserError: A field is not a finite number of at least 0.
    """
    for name, value in fields.items():
        if not 0 <= value < float("inf"):
            raise UserError(f"method.{name}={value}: must be a finite number of at least 0.")


def require_positive(method: str, **fields: float) -> None:
    """Check hyper-parameters at construction.

    Raises:
        UserError: A field is not a finite number above 0.
    """
    for name, value in fields.items():
        if not 0 < value < float("inf"):
            raise UserError(f"method.{name}={value}: {method} needs a finite number above 0.")
