"""The state of a run, and when it is saved: every few steps, when a signal asks to stop, and when a step fails."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torch.optim.lr_scheduler import LRScheduler

from align.errors import SMALLER, ServiceError, UserError, fault_of_user, first_line, is_out_of_memory
from align.model.roles import Role
from align.runs.checkpoint import Checkpoint, CheckpointStore
from align.system.files import disk_fault
from align.system.randomness import derived_seed, load_random_state, random_state, save_random_state, seed_everything
from align.system.signals import Interrupted, StopRequest
from align.training.callbacks import Callbacks
from align.training.optimizer import load_optimizer, save_optimizer, save_settings
from align.training.parts import load_parts, save_parts
from align.training.step import BrokenUpdateError, Stepper, TrainingError

if TYPE_CHECKING:
    from align.training.feed import Source


@dataclass(kw_only=True)
class TrainingState:
    """Everything that changes while training: roles, optimiser, schedule, random states, and the source of batches."""

    stepper: Stepper
    """Has policy, method and optimiser."""
    schedule: LRScheduler
    source: Source
    store: CheckpointStore
    stop: StopRequest
    steps: int
    """Of the whole run."""
    save_steps: int | None = None
    callbacks: Callbacks = field(default_factory=lambda: Callbacks((), enabled=False))
    evaluated: int = 0
    """The last step whose evaluation is whole in the log."""
    begun: int = 0
    """The last step that was begun: the frozen roles are those of its loss."""

    def save(self, step: int) -> Path:
        """Write the checkpoint of a step and wait until it is whole on disk; all ranks call it."""
        return self._save(step, waits=True)

    def save_if_due(self, step: int) -> None:
        """Every ``save_steps``, while training goes on, and after the last step; the callbacks are told."""
        if step == self.steps:
            folder = self.save(step)
        elif self.save_steps and step % self.save_steps == 0:
            folder = self._save(step, waits=False)
        else:
            return
        with self.saved_if_it_fails(step):
            self.callbacks.tell(lambda told: told.on_checkpoint(step, self.store.whole(folder)))

    def restore(self, checkpoint: Checkpoint) -> None:
        """Put everything back as it was after the checkpoint's step."""
        folder, rank = checkpoint.folder, self.stepper.processes.rank
        policy, optimizer, roles = self.stepper.policy, self.stepper.optimizer, self._roles()
        if policy.uses_adapters:
            for role in roles:
                policy.roles.load(role, folder / role)
            load_optimizer(optimizer, self.schedule, folder)
        else:
            load_parts(policy, roles, optimizer, self.schedule, folder)
            for role in policy.roles.heads.keys() & roles:
                policy.roles.heads[role].load_scale(folder / role)
        before, now = len([*folder.glob("random-*.json")]), self.stepper.processes.world_size
        if rank < before:
            load_random_state(folder / f"random-{rank}.json")
        else:
            seed_everything(derived_seed(rank, checkpoint.step))
        ranks = (rank,) if before == now else range(before)
        self.source.load([folder / f"rollout-{each}" for each in ranks], deal=before != now)
        self.evaluated, self.begun = int(checkpoint.state["evaluated"]), int(checkpoint.state["begun"])

    def begin_step(self, step: int) -> None:
        """Let the frozen roles follow the policy; a step that failed after that is done again without it."""
        if self.begun < step:
            self.stepper.method.before_step(self.stepper.policy, step)
            self.begun = step

    def stop_if_asked(self, step: int) -> None:
        """At a step boundary: if any rank caught a signal, all of them save and leave.

        Raises:
            Interrupted: A signal asked for it.
            UserError: The checkpoint that was begun last could not be written.
        """
        self.store.raise_if_failed()
        caught = max(self.stepper.processes.gather(self.stop.signum))
        if caught:
            raise Interrupted(caught, self.save(step) if step > 0 else None)

    def stop_between_batches(self) -> None:
        """Answer a signal while the model is measured; several ranks do so at the next step boundary.

        Raises:
            Interrupted: A signal asked for it; `saved_if_it_fails` saves the step.
        """
        if self.stepper.processes.world_size == 1:
            self.stop_unsaved()

    def stop_unsaved(self) -> None:
        """Answer a signal at once, before there is anything to save.

        Raises:
            Interrupted: A signal asked for it.
        """
        if self.stop.signum:
            raise Interrupted(self.stop.signum, None)

    @contextmanager
    def saved_if_it_fails(self, step: int) -> Generator[None]:
        """If the block fails, on all ranks at one place, save the state after ``step``, which it has not changed.

        Where the disk is full or gone, nothing is saved: the log may lack the step, which is then done again. Nor is
        anything after half of an update.

        Raises:
            TrainingError: In place of an error of a scorer or engine, or one in code of the user.
            UserError: With a word on what is saved.
            Interrupted: As the block raised it, with the checkpoint.
        """
        restore = random_state()
        try:
            yield
        except Interrupted as interrupted:
            if interrupted.checkpoint is None and step > 0:  # in a phase that had nothing to save
                restore()
                raise Interrupted(interrupted.signum, self.save(step)) from interrupted
            raise
        except (Exception, SystemExit) as error:
            if isinstance(error, BrokenUpdateError) or (disk_fault(error) and not fault_of_user(error)):
                raise
            restore()
            processes = self.stepper.processes
            together = processes.world_size == 1 or processes.failed_together
            kept = f" Step {self.save(step).name[5:].lstrip('0')} is saved." if step > 0 and together else ""
            fault = fault_of_user(error)
            if isinstance(error, UserError | TrainingError):
                raise type(error)(f"{error}{kept}") from error
            if isinstance(error, ServiceError) or fault is not None:
                sentence = str(error) if isinstance(error, ServiceError) else f"{fault}; correct it."
                # A context manager takes a RuntimeError that StopIteration caused for that StopIteration (PEP 479).
                cause = None if isinstance(error, StopIteration) else error
                raise TrainingError(f"{sentence}{kept} Continue with if_exists=resume.") from cause
            if is_out_of_memory(error):
                raise TrainingError(f"out of memory ({first_line(error)}); {SMALLER}.{kept}") from error
            raise

    def _save(self, step: int, *, waits: bool) -> Path:
        state = {"steps": self.steps, "evaluated": self.evaluated, "begun": self.begun}
        return self.store.save(step, state, shared=self._save_shared, own=self._save_own, waits=waits)

    def _save_shared(self, folder: Path) -> None:
        policy, optimizer = self.stepper.policy, self.stepper.optimizer
        if policy.uses_adapters:
            for role in self._roles():
                policy.roles.save(role, folder / role)
            save_optimizer(optimizer, self.schedule, folder)
        else:
            save_settings(optimizer, self.schedule, folder)
            for role in policy.roles.heads.keys() & self._roles():
                (folder / role).mkdir()
                policy.roles.heads[role].save_scale(folder / role)

    def _save_own(self, folder: Path) -> None:
        rank = self.stepper.processes.rank
        save_random_state(folder / f"random-{rank}.json")
        self.source.save(folder / f"rollout-{rank}")
        if not self.stepper.policy.uses_adapters:
            save_parts(self.stepper.policy, self._roles(), self.stepper.optimizer, folder)

    def _roles(self) -> tuple[Role, ...]:
        """Trained and moved roles, and the reference where it is an adapter of its own."""
        policy, method = self.stepper.policy, self.stepper.method
        kept: list[Role] = [role for role in policy.roles.names if role in (*method.trains, *method.moved)]
        if policy.uses_adapters and policy.roles.weights("reference"):
            kept.append("reference")
        return tuple(kept)
