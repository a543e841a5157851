"""On-line methods: what they are and what a roll-out is to them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from align.method.base import Method, Metrics
from align.model.batch import Batch
from align.sampling.sampler import SamplingParams

if TYPE_CHECKING:
    from align.data import Unit
    from align.evaluation.measurement import Measurement
    from align.model.policy import Policy


State = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class RolloutPlan:
    """How much is drawn and how often it is used."""

    responses: int
    """K, drawn for each prompt."""
    sampling: SamplingParams
    epochs: int = 1
    """Passes over a roll-out."""
    minibatches: int = 1
    """Optimiser steps of a pass."""

    @property
    def updates(self) -> int:
        """Optimiser steps of a roll-out."""
        return self.epochs * self.minibatches


@dataclass(frozen=True)
class Experience:
    """A roll-out as the loss will see it."""

    batch: Batch
    metrics: Metrics
    state: State = field(default_factory=dict[str, float])
    """What the method must know at the next roll-out (a controller's weight, running moments); JSON."""


class OnlineMethod(Method):
    """A method that learns from responses drawn while it trains. One example is a prompt."""

    unit: ClassVar[Unit] = "prompt"

    @property
    def needs_reward(self) -> bool:
        """Roll-outs are scored."""
        return True

    @property
    @abstractmethod
    def rollout(self) -> RolloutPlan:
        """How much is drawn and how often it is used."""

    @abstractmethod
    def ask_roles(self, policy: Policy, batch: Batch) -> Batch:
        """Ask the roles about drawn responses, micro-batch by micro-batch, without gradients.

        ``batch`` has ``score_PK``, ``ended_PK`` (False where a response was cut off) and ``sampler_logp_PKT``.
        """

    @abstractmethod
    def compute_advantages(self, batch: Batch, state: State, total: Callable[[Tensor], Tensor]) -> Experience:
        """Make of this rank's appraised responses what the loss needs. ``total`` sums a tensor over all ranks."""

    def stops_early(self, metrics: Mapping[str, float]) -> bool:
        """Whether, after an update with these metrics, the rest of the roll-out is left unused."""
        del metrics
        return False

    def warnings(self, rollouts: Sequence[Mapping[str, float]], evaluations: Sequence[Measurement]) -> dict[str, str]:
        """Name → sentence: what a user should know of the course of the run; asked after each roll-out.

        Args:
            rollouts: The metrics of all roll-outs of the run, the oldest first.
            evaluations: Its evaluations, that of the start model first.
        """
        del rollouts, evaluations
        return {}

    def merit(self, measurement: Measurement) -> float | None:
        """How good an evaluated policy is; the best of a run is kept in ``best/``. None: none is."""
        del measurement
        return None

    @property
    def mixing(self) -> float:
        """Weight γ of the loss on demonstrations that is added to each update; 0: none."""
        return 0.0
