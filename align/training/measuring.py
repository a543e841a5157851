"""Measuring while training: the method's own metrics on held-out data, and the evaluator's on held-out prompts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from align.system.processes import on_first
from align.training.step import collect

if TYPE_CHECKING:
    from rich.console import Console

    from align.evaluation.evaluator import Evaluator
    from align.evaluation.measurement import Measurement
    from align.model.policy import Policy
    from align.runs.tracker import Tracker
    from align.training.batches import Batches
    from align.training.step import Stepper


class Measuring:
    """Measures the policy of a run and writes what it finds into the run's log."""

    def __init__(
        self,
        policy: Policy,
        stepper: Stepper,
        tracker: Tracker,
        console: Console,
        *,
        evaluator: Evaluator | None,
        heldout: Batches | None,
        rank: int,
        world: int,
        leave: Callable[[int], None],
        shown: int,
    ) -> None:
        """
        Args:
            heldout: For the method's own metrics.
            leave: Called between batches with the step; may raise to stop.
            shown: Samples that are shown a person.
        """
        self.policy, self.stepper, self.tracker, self.console = policy, stepper, tracker, console
        self.evaluator, self.heldout = evaluator, heldout
        self.rank, self.world, self.leave, self.shown = rank, world, leave, shown
        self.done: list[Measurement] = []

    def evaluate(self, step: int) -> Measurement | None:
        """The method's own metrics (``eval/…``) and the evaluator's (``evaluation/…``)."""
        if self.heldout is not None:
            collected: dict[str, tuple[float, float]] = {}
            for batch in self.heldout.all(64):
                self.leave(step)
                collect(collected, self.stepper.measure(batch))
            metrics = self.stepper.reduce_metrics(collected)
            self.tracker.log(step, {f"eval/{name}": value for name, value in metrics.items()})
        return self._measure(step)

    def start(self, *, resumed: bool) -> Measurement | None:
        """The evaluator's measurement of the start model; a resumed run has it in its log."""
        wanted = resumed and self.evaluator is not None
        logged = on_first(lambda: self.tracker.read_evaluation(0)) if wanted else None
        if logged is None:
            return self._measure(0)
        self.done.append(logged)
        return logged

    def recall(self) -> None:
        """Go on from the log of the run that is resumed."""
        self.done = list(on_first(self.tracker.read_evaluations).values())

    def _measure(self, step: int) -> Measurement | None:
        if self.evaluator is None:
            return None
        model = "start model" if step == 0 else f"model after step {step}"
        self.console.print(f"Answering held-out prompts with the {model} …")
        measurement = self.evaluator.measure(
            self.policy, rank=self.rank, world=self.world, between=lambda: self.leave(step)
        )
        self.tracker.log_evaluation(step, measurement, shown=self.shown)
        self.done.append(measurement)
        return measurement
