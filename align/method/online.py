"""The base of methods that learn from responses drawn while they train."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from align.method.base import Experience, Method, RolloutPlan, State

if TYPE_CHECKING:
    from torch import Tensor

    from align.data import Unit
    from align.model.batch import Batch
    from align.model.policy import Policy

__all__ = ["OnlineMethod"]


class OnlineMethod(Method):
    """A method whose examples are prompts: the hooks of :class:`align.method.base.Method` that it cannot do without."""

    unit: ClassVar[Unit] = "prompt"
    dropout: ClassVar[bool] = False  # the update's ratio to the policy that drew is 1 before the first step

    @property
    @abstractmethod
    def rollout(self) -> RolloutPlan:
        """The size of the roll-outs, and their number of uses."""

    @abstractmethod
    def ask_roles(self, policy: Policy, batch: Batch) -> Batch:
        """See :meth:`align.method.base.Method.ask_roles`."""

    @abstractmethod
    def compute_advantages(self, batch: Batch, state: State, total: Callable[[Tensor], Tensor]) -> Experience:
        """See :meth:`align.method.base.Method.compute_advantages`."""
