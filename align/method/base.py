"""The protocol between a method and the trainer: hyper-parameters in a frozen dataclass, and a loss over ``logp_PKT``.

The main calls of a run::

    data = tokenize(method.learns_from(rows), unit=method.unit)
    method.begin(policy)
    for step in steps:
        if method.rollout and the last roll-out is used up:
            drawn = rollout.responses to each prompt, with scores
            data = method.compute_advantages(method.ask_roles(policy, drawn))
        method.before_step(policy, step)
        parts = [method.prepare(policy, part) for part in micro-batches of the step's share of data]
        parts = method.prepare_step(policy, parts)
        weight = sum(method.weight(part) for part in parts), over all ranks
        for role in method.trains, part in parts:
            (method.loss(policy, part).sums[role] / weight).backward()
        optimizer.step()
    method.report(policy, data, heldout)

A loss is a *sum*; the trainer divides it by the step-wide weight, so that the size of micro-batches, accumulation and
the number of ranks never change the result.
"""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import torch

from align.errors import UserError
from align.model.devices import moved
from align.settings.type_checks import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from align.candidates.plan import CandidatePlan
    from align.data import Preferences, TokenizedPreferences, Unit
    from align.evaluation.measurement import Measurement
    from align.model.batch import Batch
    from align.model.policy import Policy
    from align.model.roles import Role
    from align.sampling.params import SamplingParams


T = TypeVar("T")
Metrics = Mapping[str, "tuple[Tensor, Tensor | float]"]
"""Name → (sum, weight): logged as Σsum / Σweight over micro-batches and ranks."""
State = Mapping[str, float]
"""Numbers that a method carries from one roll-out to the next (a controller's weight, running moments); JSON."""


class Together(Protocol):
    """See :meth:`align.system.processes.Processes.together`."""

    def __call__(self, make: Callable[[], T], /) -> list[T]:
        """Call ``make`` on every rank; the results of all in their order. If it fails on one it fails on all."""
        ...


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
    """Share of the steps in which the learning rate rises to its peak."""
    schedule: str = "cosine"


@dataclass(frozen=True)
class Loss:
    """A loss on one micro-batch."""

    sums: Mapping[Role, Tensor]
    """Per trained role the un-normalised sum, a scalar with gradient."""
    metrics: Metrics = field(default_factory=dict[str, "tuple[Tensor, Tensor | float]"])


@dataclass(frozen=True, kw_only=True)
class RolloutPlan:
    """The size of an on-line method's roll-outs, and their number of uses."""

    responses: int
    """K, drawn for each prompt."""
    sampling: SamplingParams
    epochs: int = 1
    """Passes over a roll-out."""
    minibatches: int = 1
    """Optimiser steps of a pass."""
    refills: int = 0
    """How often further prompts are drawn for, until as many as usual teach something (``Method.teaches``)."""

    @property
    def updates(self) -> int:
        """Optimiser steps of a roll-out."""
        return self.epochs * self.minibatches


@dataclass(frozen=True)
class Experience:
    """A roll-out as the loss will see it."""

    batch: Batch
    metrics: Metrics = field(default_factory=dict[str, "tuple[Tensor, Tensor | float]"])
    state: State = field(default_factory=dict[str, float])


class Method(Settings, ABC):
    """Base of all methods. Subclasses are frozen dataclasses whose fields are the hyper-parameters.

    The types and choices of the fields are checked when one is built; ``check`` adds ranges and contradictions.
    Only :meth:`weight` and :meth:`loss` must be written. Grouped by when they are called:

    * what the method is: ``unit``, ``optimization``, ``headline``, ``tie``, ``dropout``, ``trains``, ``frozen``,
      ``moved``, ``generates``;
    * what it asks of a run: ``candidates``, ``rollout``, ``needs_reward``, ``cached_columns``, ``mixing``;
    * before the first step: :meth:`learns_from`, :meth:`doubts`, :meth:`begin`;
    * for each optimiser step: :meth:`before_step`, :meth:`prepare`, :meth:`prepare_step`, :meth:`weight`, :meth:`loss`;
    * for each roll-out of an on-line method: :meth:`ask_roles`, :meth:`teaches`, :meth:`compute_advantages`,
      :meth:`stops_early`;
    * after an evaluation, the last step: :meth:`merit`, :meth:`report`.
    """

    # What it is

    unit: ClassVar[Unit]
    """One example: a demonstration (K=1), a pair (K=2), a ranking (any K) or a bare prompt (K=0)."""
    optimization: ClassVar[Optimization]
    headline: ClassVar[str] = "loss"
    """The metric shown in the progress bar beside the loss."""
    tie: ClassVar[str | None] = None
    """Setting that holds the policy near the model it began from, the more the larger; None: there is none."""
    dropout: ClassVar[bool] = True
    """The adapters' dropout is active in the loss; False where the loss compares passes, as a ratio or a KL does."""

    @property
    def trains(self) -> tuple[Role, ...]:
        """The roles whose weights the loss changes."""
        return ("policy",)

    @property
    def frozen(self) -> tuple[Role, ...]:
        """The roles that are asked but never trained."""
        return ()

    @property
    def moved(self) -> tuple[Role, ...]:
        """The frozen roles whose weights :meth:`before_step` changes; checkpoints keep them as they do trained ones."""
        return ()

    @property
    def roles(self) -> tuple[Role, ...]:
        """Every role this method asks, trained or frozen."""
        return (*self.trains, *self.frozen)

    @property
    def generates(self) -> bool:
        """True if the trained policy answers the prompts of the data, so that its answers can be evaluated."""
        return "policy" in self.trains

    # What it asks of a run

    @property
    def candidates(self) -> CandidatePlan | None:
        """Responses to draw, score and train on (:mod:`align.candidates.drawing`); None: it trains on the data."""
        return None

    @property
    def rollout(self) -> RolloutPlan | None:
        """Responses to draw while it trains, which makes it an on-line method; None: its batches are the data's."""
        return None

    @property
    def needs_reward(self) -> bool:
        """True if responses are drawn, before training or during it, that must be scored."""
        return self.rollout is not None or (self.candidates is not None and self.candidates.scored)

    @property
    def mixing(self) -> float:
        """Weight γ of the loss on demonstrations that is added to each update; 0: none."""
        return 0.0

    # Before the first step

    def cached_columns(self, passes: float) -> tuple[str, ...]:
        """Columns of :meth:`prepare` to compute once for all of the data, by the policy before its first step.

        The batches of the steps then have them, and :meth:`prepare` must leave them as they are. ``passes``: how often
        the run will meet each row.
        """
        del passes
        return ()

    def learns_from(self, data: Preferences) -> Preferences:
        """The rows to tokenise, made from those of the data."""
        return data

    def begin(self, policy: Policy) -> None:
        """Initialise roles from others. Not called when a run is resumed."""
        del policy

    def doubts(self, data: TokenizedPreferences, steps: int) -> Sequence[str]:
        """Say why the method can learn little from the training data, or in so many steps; the run goes on."""
        del data, steps
        return ()

    # For each step

    def before_step(self, policy: Policy, step: int) -> None:
        """Change the frozen roles that follow the policy. Steps are counted from 1; every rank does the same.

        What is measured after a step is measured with the roles of its loss.
        """
        del policy, step

    def prepare(self, policy: Policy, batch: Batch) -> Batch:
        """Add what the loss needs and no gradient flows through, such as the reference's log-probabilities."""
        del policy
        return batch

    def prepare_step(self, policy: Policy, parts: Sequence[Batch], together: Together) -> Sequence[Batch]:
        """Add to this rank's prepared micro-batches of a step what depends on all of them, and on other ranks'.

        Called without gradients; every rank calls ``together`` as often, one without a share of the step too.
        """
        del policy, together
        return parts

    @abstractmethod
    def weight(self, batch: Batch) -> float:
        """The denominator this micro-batch contributes, known before any forward (tokens, pairs)."""

    @abstractmethod
    def loss(self, policy: Policy, batch: Batch) -> Loss:
        """The loss sum on a prepared micro-batch, for the role in use."""

    # For each roll-out

    def ask_roles(self, policy: Policy, batch: Batch) -> Batch:
        """Ask the roles about drawn responses, micro-batch by micro-batch, without gradients.

        ``batch`` has ``score_PK``, ``ended_PK`` (False where a response was cut off) and ``sampler_logp_PKT``.
        """
        del policy
        return batch

    def teaches(self, batch: Batch) -> Tensor:
        """Say of which prompts the scored responses teach something, bool (P,); where none does no update is made."""
        return torch.ones(batch.P, dtype=torch.bool)

    def compute_advantages(self, batch: Batch, state: State, total: Callable[[Tensor], Tensor]) -> Experience:
        """Turn this rank's part of the roll-out, its roles asked, into the columns that the loss needs.

        Args:
            batch: All responses of this rank.
            state: That of the roll-out before; empty at first.
            total: Sums a tensor over all ranks.
        """
        del total
        return Experience(batch, state=state)

    def stops_early(self, metrics: Mapping[str, float]) -> bool:
        """Decide, after an update with these metrics, whether to leave the rest of the roll-out unused."""
        del metrics
        return False

    # After an evaluation, the last step

    def merit(self, measurement: Measurement) -> float | None:
        """Rate an evaluated policy; the best of a run is kept in ``best/``. None: none is kept."""
        del measurement
        return None

    def report(
        self, policy: Policy, train: TokenizedPreferences, heldout: TokenizedPreferences | None, folder: Path | None
    ) -> Mapping[str, Any]:
        """Set in the roles what training does not, and return entries of ``evaluation.json``.

        Every rank calls it and must come to the same; ``folder`` is the run's for pictures, on rank 0 only.
        """
        del policy, train, heldout, folder
        return {}


class PairwiseMethod(Method):
    """A method over pairs: response 0 is the chosen one, response 1 the rejected one; each pair weighs ``weight_P``."""

    unit: ClassVar[Unit] = "pair"

    def weight(self, batch: Batch) -> float:
        """The summed weights of the pairs: a plain count where the data gives none."""
        return float(batch["weight_P"].sum())


def sequence_sums(logp_PKT: Tensor, mask_PKT: Tensor) -> Tensor:
    """``S = Σ_t logp_t`` over response tokens, end-of-turn included; (P, K), nats."""
    return torch.where(mask_PKT, logp_PKT, 0).sum(-1)


def response_sums(policy: Policy, batch: Batch) -> Tensor:
    """Summed log-probabilities of the responses by the role in use, in nats; (P, K)."""
    logp_PKT = policy.logprobs(batch).logp_PKT
    return sequence_sums(logp_PKT, moved(batch.mask_PKT, logp_PKT.device))


def compared(reward_PK: Tensor, better_PKK: Tensor) -> tuple[Tensor, Tensor]:
    """Rewards of the preferred and of the other response of each comparison, 0 where there is none; (P, K, K) each.

    Taken by a mask: to index by one would be to wait for the accelerator.
    """
    return torch.where(better_PKK, reward_PK[:, :, None], 0), torch.where(better_PKK, reward_PK[:, None, :], 0)


def weighted_metrics(values: Mapping[str, Tensor], weight: Tensor) -> dict[str, tuple[Tensor, Tensor | float]]:
    """``(Σ w·x, Σ w)`` of each metric; all have these weights, of the same shape."""
    return {name: ((value * weight).sum(), weight.sum()) for name, value in values.items()}


def require_effect(method: Any, when: bool, needed: str, *names: str) -> None:
    """Refuse settings that were changed but have no effect as the others are set.

    Args:
        method: A dataclass.
        when: The fields have an effect.
        needed: What they need for it, to follow "without".
        *names: Of the fields.

    Raises:
        UserError: A field has another value than its default, and no effect.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(method)}
    for name in names if not when else ():
        value = getattr(method, name)
        if value != defaults[name]:
            shown = json.dumps(value) if isinstance(value, bool) else value
            raise UserError(
                f"method.{name}={shown} has no effect without {needed}; add it, or leave method.{name} out."
            )


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
