"""Code of the user's that follows a run: ``Trainer.fit(…, callbacks=[MyLogger()])``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from align.errors import require_kind
from align.evaluation.measurement import Measurement

__all__ = ["Callback", "Callbacks"]


class Callback:
    """Base of callbacks; override those that are needed. They are called in the first process alone.

    An error in one ends the run, which can be resumed. A resumed run calls them from the step it goes on with.
    """

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """After an optimiser step, counted from 1, with all its metrics by phase: ``train/loss``, ``rollout/…``."""

    def on_evaluation(self, step: int, measurement: Measurement) -> None:
        """After an evaluation on held-out prompts: before the first step (0), every ``eval_steps``, after the last."""

    def on_checkpoint(self, step: int, folder: Path) -> None:
        """After a checkpoint of ``save_steps`` is whole on disk."""


class Callbacks:
    """Tells all of them, in their order."""

    def __init__(self, callbacks: Sequence[Callback], *, enabled: bool) -> None:
        """
        Raises:
            UserError: One is no callback.
        """
        require_kind((list, tuple), "give a list of callbacks", callbacks=callbacks)
        for i, callback in enumerate(callbacks):
            require_kind(Callback, "make one, as MyLogger() of a subclass of Callback", **{f"callbacks[{i}]": callback})
        self._told = list(callbacks) if enabled else []

    def tell(self, event: Callable[[Callback], None]) -> None:
        """Call ``event`` with each of them."""
        for callback in self._told:
            event(callback)
