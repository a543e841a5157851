"""Measuring while training, and warning of a run that goes wrong.

The method's own metrics are measured on held-out data, the evaluator's on held-out prompts; after each roll-out the
method is asked whether the course of the run is healthy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.evaluation.measurement import compare, win_rate
from align.runs import report
from align.runs.final_weights import replace_policy
from align.runs.tracker import by_phase
from align.system.files import read_json, write_json
from align.system.processes import add_metrics

if TYPE_CHECKING:
    from rich.console import Console

    from align.data import TokenizedPreferences
    from align.evaluation.evaluator import Evaluator
    from align.evaluation.measurement import Measurement
    from align.runs.tracker import Tracker
    from align.settings.config import TrainerConfig
    from align.training.feed import Batches
    from align.training.step import Stepper

_EXAMPLES = 64  # held-out examples measured between two looks at signals


class Monitor:
    """Measures the policy of a run and writes the results into the run's log."""

    def __init__(
        self,
        stepper: Stepper,
        tracker: Tracker,
        console: Console,
        config: TrainerConfig,
        *,
        folder: Path,
        steps: int,
        evaluator: Evaluator | None,
        heldout: Batches | None,
        between: Callable[[int], None],
    ) -> None:
        """
        Args:
            stepper: Has policy and method, and measures the method's metrics.
            tracker: The log of the run.
            console: For the user.
            config: Gives ``log_steps``, ``eval_steps`` and ``samples``.
            folder: Of the run.
            steps: Of the whole run.
            evaluator: None: answers are not evaluated.
            heldout: For the method's own metrics.
            between: Called between batches with the step; may raise to stop.
        """
        self.stepper, self.tracker, self.console, self.config = stepper, tracker, console, config
        self.policy, self.method, self.processes = stepper.policy, stepper.method, stepper.processes
        self.folder, self.steps, self.between = folder, steps, between
        self.evaluator, self.heldout = evaluator, heldout
        self.evaluations: list[Measurement] = []
        self.rollouts: list[Mapping[str, float]] = []
        self.warned: set[str] = set()
        self._latest: dict[str, float] = {}

    @property
    def headline(self) -> dict[str, str]:
        """The latest metrics for the progress bar."""
        names = {"loss": "loss", self.method.headline: self.method.headline, "tokens_per_second": "tok/s"}
        return {short: f"{self._latest[name]:.3g}" for name, short in names.items() if name in self._latest}

    def log(self, step: int, metrics: Mapping[str, float], *, rollout: Mapping[str, float]) -> Mapping[str, float]:
        """Log a step every ``log_steps``, the last one, and each that has the metrics of a new ``rollout``.

        Returns all of its metrics, by phase.
        """
        self._latest |= {**metrics, **rollout}
        if rollout:
            self._warn(step, {**metrics, **rollout})
        record = by_phase(train=metrics, rollout=rollout)
        if rollout or step % self.config.log_steps == 0 or step == self.steps:
            self.tracker.log(step, record)
        return record

    def start(self, *, resumed: bool) -> Measurement | None:
        """The evaluator's measurement of the start model; a resumed run has it in its log."""
        wanted = resumed and self.evaluator is not None
        logged = self.processes.on_first(lambda: self.tracker.read_evaluation(0)) if wanted else None
        if logged is None:
            return self._measure(0)
        self.evaluations.append(logged)
        return logged

    def resume(self) -> None:
        """Go on from the log of the run that is resumed."""
        tracker = self.tracker
        evaluations, self.rollouts, self.warned = self.processes.on_first(
            lambda: (tracker.read_evaluations(), tracker.read_rollouts(), tracker.read_warnings())
        )
        self.evaluations = list(evaluations.values())

    def evaluate(self, step: int) -> Measurement | None:
        """Measure the method's own metrics (``heldout/…``) and the evaluator's (``evaluation/…``)."""
        if self.heldout is not None:
            collected: dict[str, tuple[float, float]] = {}
            for batch in self.heldout.all(_EXAMPLES):
                self.between(step)
                add_metrics(collected, self.stepper.measure(batch))
            metrics = self.processes.reduce_metrics(collected)
            self.tracker.log(step, by_phase(heldout=metrics))
        measured = self._measure(step)
        if measured is not None and self.config.eval_steps:
            self._keep_best(step, measured)
        return measured

    def conclude(
        self,
        train: TokenizedPreferences,
        before: Measurement | None,
        after: Measurement | None,
        beside: Mapping[str, Measurement],
    ) -> dict[str, Any]:
        """Let the method report, compare the model before and after; returns the content of ``evaluation.json``."""
        first = self.processes.is_first
        heldout = self.heldout.data if self.heldout is not None else None
        with self.processes.autocast(self.policy.device):
            evaluation = dict(self.method.report(self.policy, train, heldout, self.folder if first else None))
        if before is not None and after is not None:
            compared = compare(before, after)
            merged = {name: compared[name] | evaluation.get(name, {}) for name in ("metrics", "intervals")}
            if "win_rate" in compared:
                compared["win_rate"]["over"] = self.policy.name
                others = {name: win_rate(measured, after) for name, measured in beside.items()}
                merged["win_rates_beside"] = [{"over": name, **(won or {})} for name, won in others.items()]
            evaluation |= compared | merged
            report.print_samples(before.samples, after.samples, self.console, limit=self.config.samples)
        if first:
            if evaluation:
                write_json(self.folder / "evaluation.json", evaluation)
                report.print_evaluation(evaluation, self.console)
            report.plot_curves(self.folder)
            self.tracker.log_results(self.steps, evaluation, self.evaluations, shown=self.config.samples)
        return evaluation

    def _measure(self, step: int) -> Measurement | None:
        if self.evaluator is None:
            return None
        model = "start model" if step == 0 else f"model after step {step}"
        self.console.print(f"Answering held-out prompts with the {model} …")
        measurement = self.evaluator.measure(self.policy, self.processes, between=lambda: self.between(step))
        self.tracker.log_evaluation(step, measurement, shown=self.config.samples)
        self.evaluations.append(measurement)
        return measurement

    def _keep_best(self, step: int, measured: Measurement) -> None:
        merit = self.method.merit(measured)
        if merit is None or not self.processes.is_first:
            return
        folder = self.folder / "best"
        best = read_json(folder / "merit.json")
        if best is not None and best["merit"] >= merit:
            return
        replace_policy(self.policy, folder, {"step": step, "merit": merit})

    def _warn(self, step: int, rollout: Mapping[str, float]) -> None:
        """Warn once of each thing that the method finds unhealthy."""
        self.rollouts.append(rollout)
        for name, sentence in self.method.warnings(self.rollouts, self.evaluations).items():
            if name not in self.warned:
                self.warned.add(name)
                self.tracker.warn(step, name, sentence)
                self.console.print(f"Warning: {sentence}", soft_wrap=True, markup=False, highlight=False)
