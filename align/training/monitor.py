"""Measuring while training, and warning of a run that goes wrong.

The method's own metrics are measured on held-out data, the evaluator's on held-out prompts; after roll-outs and
evaluations, and twenty times in a run, the rules of :mod:`align.diagnosis` look at its course.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.diagnosis.course import Course
from align.diagnosis.rules import examine
from align.diagnosis.verdict import LINES, judge
from align.evaluation.measurement import compare, win_rate
from align.runs import report
from align.runs.final_weights import replace_policy
from align.runs.tracker import FAILED, by_phase, of_phase, read_records
from align.system.files import read_json, write_json
from align.system.identity import differences
from align.system.processes import add_metrics
from align.system.randomness import random_state
from align.system.redaction import redact

if TYPE_CHECKING:
    from rich.console import Console

    from align.data import TokenizedPreferences
    from align.diagnosis.rule import Finding
    from align.evaluation.evaluator import Evaluator
    from align.evaluation.measurement import Beside, Measurement
    from align.runs.tracker import Tracker
    from align.sampling.engine.engines import Engine
    from align.settings.config import TrainerConfig
    from align.training.feed import Batches
    from align.training.plan import Plan
    from align.training.step import Stepper

_EVALUATION_INPUTS = "evaluation_inputs.json"
"""All that the evaluations of a run depend on."""
_LOOKS = 20  # at the course of a run that draws nothing


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
        settings: Mapping[str, Any],
        plan: Plan,
        evaluator: Evaluator | None,
        heldout: Batches | None,
        between: Callable[[], None],
        engine: Engine | None = None,
    ) -> None:
        """
        Args:
            stepper: Has policy and method, and measures the method's metrics.
            tracker: The log of the run.
            console: For the user.
            config: Gives ``log_steps``, ``eval_steps`` and ``samples``.
            folder: Of the run.
            settings: The content of its ``config.yaml``.
            plan: Of the run; steps of held-out data are as large as those of training.
            evaluator: None: answers are not evaluated.
            heldout: For the method's own metrics.
            between: Called between batches; may raise to stop.
            engine: Draws answers from the policy; None: the built-in loop.
        """
        self.stepper, self.tracker, self.console, self.config = stepper, tracker, console, config
        self.policy, self.method, self.processes = stepper.policy, stepper.method, stepper.processes
        self.folder, self.steps, self.between, self.engine = folder, plan.steps, between, engine
        self.evaluator, self.heldout, self.batch_size = evaluator, heldout, plan.batch_size
        self.course = Course(settings)
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
        record = by_phase(train=metrics, rollout=rollout)
        if rollout or step % self.config.log_steps == 0 or step == self.steps:
            self._log(step, record)
        if rollout or step % max(1, self.steps // _LOOKS) == 0:
            self._warn(step)
        return record

    def start(self, *, resumed: bool) -> Measurement | None:
        """The evaluator's measurement of the start model; a resumed run has it in its log, if it measured the same.

        The method's own metrics are measured too where they are on the way, so that their curves have a beginning.
        """
        if self.config.eval_steps and not (resumed and self.processes.on_first(self._has_begun)):
            self._measure_method(0)
        if self.evaluator is None:
            return None
        logged = self.processes.on_first(lambda: self._read_before(resumed))
        if logged is None:
            return self._measure(0)
        self.course.evaluations[0] = logged
        return logged

    def _read_before(self, resumed: bool) -> Measurement | None:
        """The start model as a resumed run has measured it by this evaluation; None, once others are dropped."""
        assert self.evaluator is not None
        inputs, file = redact(self.evaluator.identity()), self.folder / _EVALUATION_INPUTS
        saved = read_json(file) if resumed else None
        found = [] if saved is None else differences({"evaluation": saved}, {"evaluation": inputs})
        if found:
            self.console.print(
                f"This run was evaluated otherwise before: {'; '.join(found)}. What was measured then is dropped, and "
                "the start model is measured again, so that before and after can be compared.",
                soft_wrap=True,
            )
            self.tracker.forget_evaluations()
        elif resumed and (logged := self.tracker.read_evaluation(0)) is not None:
            return logged
        write_json(file, inputs)
        return None

    def resume(self) -> None:
        """Go on from the log of the run that is resumed."""

        def read() -> tuple[Course, set[str]]:
            course = Course(self.course.settings)
            course.add_logged(self.folder)
            return course, self.tracker.read_warnings()

        self.course, self.warned = self.processes.on_first(read)

    def evaluate(self, step: int) -> Measurement | None:
        """Measure the method's own metrics (``heldout/…``) and the evaluator's (``evaluation/…``)."""
        self._measure_method(step)
        measured = self._measure(step)
        if step < self.steps:  # after the last step the verdict says it
            self._warn(step)
        if measured is not None and self.config.eval_steps:
            self._keep_best(step, measured)
        return measured

    def conclude(
        self,
        train: TokenizedPreferences,
        before: Measurement | None,
        after: Measurement | None,
        beside: Sequence[Beside],
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
                merged["win_rates_beside"] = [
                    {"over": one.name, "role": one.role, **(win_rate(one.measurement, after) or {})} for one in beside
                ]
            evaluation |= compared | merged
            report.print_samples(before.samples, after.samples, self.console, limit=self.config.samples)
        if first:
            if evaluation:
                write_json(self.folder / "evaluation.json", evaluation)
                report.print_evaluation(evaluation, self.console)
            report.plot_curves(self.folder)
            self._judge(evaluation)
            self.tracker.log_results(
                self.steps, evaluation, list(self.course.evaluations.values()), shown=self.config.samples
            )
        return evaluation

    def fail(self, error: Exception) -> None:
        """Record the error that ends the run."""
        self.tracker.warn(self.course.step, FAILED, str(error))

    def _has_begun(self) -> bool:
        records = read_records(self.tracker.metrics)
        return any(record["step"] == 0 and of_phase(record, "heldout") for record in records)

    def _measure_method(self, step: int) -> None:
        if self.heldout is None:
            return
        collected: dict[str, tuple[float, float]] = {}
        for batch in self.heldout.steps(self.batch_size):
            self.between()
            add_metrics(collected, self.stepper.measure(batch))
        self._log(step, by_phase(heldout=self.processes.reduce_metrics(collected)))

    def _measure(self, step: int) -> Measurement | None:
        if self.evaluator is None:
            return None
        model = "start model" if step == 0 else f"model after step {step}"
        self.console.print(f"Answering held-out prompts with the {model} …")
        restore = random_state()
        measurement = self.evaluator.measure(self.policy, self.processes, engine=self.engine, between=self.between)
        restore()  # what scorers draw changes nothing in training
        self.tracker.log_evaluation(step, measurement, shown=self.config.samples)
        self.course.evaluations[step] = measurement
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

    def _log(self, step: int, record: Mapping[str, float]) -> None:
        self.tracker.log(step, record)
        self.course.add(step, record)

    def _warn(self, step: int) -> None:
        """Warn once of each thing that is unhealthy."""
        for finding in examine(self.course):
            if finding.name not in self.warned:
                self._record(step, finding)
                self._say(f"Warning: {finding.sentence}")

    def _judge(self, evaluation: Mapping[str, Any]) -> None:
        """Say the verdict on the run, and record what it found that was not warned of."""
        self.course.report = evaluation
        verdict = judge(self.course, self.folder)
        for finding in verdict.findings:
            if finding.name not in self.warned:
                self._record(self.steps, finding)
        for line in verdict.lines(LINES):
            self._say(line)

    def _record(self, step: int, finding: Finding) -> None:
        self.warned.add(finding.name)
        self.tracker.warn(step, finding.name, finding.sentence)

    def _say(self, line: str) -> None:
        self.console.print(line, soft_wrap=True)
