"""What a checkpoint holds: trained roles, optimiser, schedule, random states, and the roll-out in use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.optim.lr_scheduler import LRScheduler

from align.model.roles import Role
from align.runs.checkpoint import Checkpoint, CheckpointStore
from align.system.randomness import load_random_state, save_random_state
from align.training.optimizer import load_optimizer, save_optimizer

if TYPE_CHECKING:
    from align.method.base import Method
    from align.model.policy import Policy
    from align.training.rollout import Rollouts


@dataclass(frozen=True)
class TrainingState:
    """Everything that changes while training, as one thing to save and to restore."""

    policy: Policy
    method: Method
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler
    rollouts: Rollouts | None
    rank: int

    def save(self, store: CheckpointStore, step: int, steps: int) -> Path:
        """Write the checkpoint of a step out of ``steps``; all ranks call it."""
        return store.save(step, {"steps": steps}, shared=self._save_shared, own=self._save_own)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Put everything back as it was after the checkpoint's step."""
        folder = checkpoint.folder
        for role in self._roles():
            self.policy.roles.load(role, folder / role)
        load_optimizer(self.optimizer, self.schedule, folder)
        load_random_state(folder / f"random-{self.rank}.json")
        if self.rollouts is not None:
            self.rollouts.load(folder / f"rollout-{self.rank}")

    def _save_shared(self, folder: Path) -> None:
        for role in self._roles():
            self.policy.roles.save(role, folder / role)
        save_optimizer(self.optimizer, self.schedule, folder)

    def _save_own(self, folder: Path) -> None:
        save_random_state(folder / f"random-{self.rank}.json")
        if self.rollouts is not None:
            self.rollouts.save(folder / f"rollout-{self.rank}")

    def _roles(self) -> tuple[Role, ...]:
        """Trained roles, and the reference where it is an adapter of its own."""
        kept: list[Role] = [role for role in self.policy.roles.names if role in self.method.trains]
        if self.policy.uses_adapters and self.policy.roles.weights("reference"):
            kept.append("reference")
        return tuple(kept)
