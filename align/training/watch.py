"""Watching an on-line run: what its method finds unhealthy is said once, on the console and in the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from align.system.processes import on_first

if TYPE_CHECKING:
    from rich.console import Console

    from align.evaluation.measurement import Measurement
    from align.method.online import OnlineMethod
    from align.runs.tracker import Tracker


class Watch:
    """Asks the method after each roll-out, with all that the run has measured so far."""

    def __init__(self, method: OnlineMethod, tracker: Tracker, console: Console) -> None:
        self.method, self.tracker, self.console = method, tracker, console
        self.rollouts: list[Mapping[str, float]] = []
        self.warned: set[str] = set()

    def recall(self) -> None:
        """Go on from the log of the run that is resumed."""
        self.rollouts, self.warned = on_first(lambda: (self.tracker.read_rollouts(), self.tracker.read_warnings()))

    def look(self, step: int, metrics: Mapping[str, float], evaluations: Sequence[Measurement]) -> None:
        """Take in the metrics of a roll-out; say what has become unhealthy."""
        self.rollouts.append(metrics)
        for name, sentence in self.method.warnings(self.rollouts, evaluations).items():
            if name not in self.warned:
                self.warned.add(name)
                self.tracker.warn(step, name, sentence)
                self.console.print(f"Warning: {sentence}", soft_wrap=True, markup=False, highlight=False)
