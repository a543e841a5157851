"""The verdict on a run: the improvement with its interval, its cost, and what is unhealthy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from align.diagnosis.course import Course
from align.diagnosis.rule import Finding
from align.diagnosis.rules import RULES, examine
from align.errors import UserError
from align.evaluation.statistics import Estimate
from align.runs.tracker import read_records
from align.system.terminal import visible

__all__ = ["LINES", "Verdict", "diagnose", "judge"]

LINES = 6  # of a verdict at the end of a run


@dataclass(frozen=True)
class Verdict:
    """The outcome of a run, and what is to be done about it."""

    folder: Path
    step: int
    steps: int | None
    """Of the whole run; None where it is not known."""
    improved: str
    """A sentence with the win rate, or what else was measured, and its 95 % interval."""
    cost: str
    """A sentence: KL, length, time."""
    findings: Sequence[Finding]
    """Unhealthy at the end, causes first."""
    recovered: Sequence[str]
    """Names of live warnings that hold no more."""
    looked: int
    """Number of rules that had anything to look at."""

    @property
    def healthy(self) -> bool:
        """True if no rule found anything."""
        return not self.findings

    def lines(self, most: int | None = None) -> list[str]:
        """Return the verdict in lines for a terminal, at most ``most`` of them."""
        unhealthy = [f"Unhealthy ({finding.name}): {finding.sentence}" for finding in self.findings]
        room = len(unhealthy) if most is None else most - 2
        if len(unhealthy) > room:
            unhealthy[room - 1 :] = [f"… and {len(unhealthy) - room + 1} more: align diagnose {self.folder}"]
        running = [f"Step {self.step} of {self.steps}."] if self.steps and self.step < self.steps else []
        again = [f"Recovered: {', '.join(self.recovered)}."] if self.recovered and most is None else []
        blind = len(RULES) - self.looked
        had_none = f" ({blind} had nothing to look at)" if blind else ""
        healthy = [] if unhealthy else [f"Healthy: none of {self.looked} rules found anything{had_none}."]
        return [visible(line) for line in (*running, self.improved, self.cost, *unhealthy, *healthy, *again)]

    def plain(self) -> dict[str, Any]:
        """Return the verdict as JSON has it."""
        findings = [{**asdict(finding), "sentence": finding.sentence} for finding in self.findings]
        return {**asdict(self), "folder": str(self.folder), "findings": findings, "healthy": self.healthy}


def diagnose(folder: str | Path) -> Verdict:
    """Judge a finished or a running run by its folder.

    Raises:
        UserError: The folder is not that of a run, or nothing is logged in it yet.
    """
    folder = Path(folder)
    course = Course.read(folder)
    if not course.step:
        raise UserError(f"{folder} has no metrics yet; look again after its first steps.")
    return judge(course, folder)


def judge(course: Course, folder: Path) -> Verdict:
    """Judge a run by its course; ``folder`` has its live warnings."""
    findings = examine(course)
    holding = {finding.name for finding in findings}
    warned = dict.fromkeys(record["name"] for record in read_records(folder / "warnings.jsonl"))
    return Verdict(
        folder=folder,
        step=course.step,
        steps=course.resolved.get("steps"),
        improved=_improved(course),
        cost=_cost(course),
        findings=findings,
        recovered=[name for name in warned if name not in holding],
        looked=sum(any(map(course.has, rule.reads)) for rule in RULES),
    )


def _improved(course: Course) -> str:
    pairs = course.pair_accuracy
    ordered = "" if pairs is None else f"held-out pairs ordered as labelled {pairs.percent('pairs')}"
    if course.win_rate is not None:
        by, won = course.win_rate
        word = _judged(won)
        more = f"; {ordered}" if ordered else ""
        return f"{word}: win rate over the start model by {by} {won.percent('prompts')}{more}."
    if pairs is not None:
        return f"{_judged(pairs)}: {ordered}."
    loss = course.change("train/loss")
    went = (
        "too few steps for a course of train/loss"
        if loss is None
        else (f"train/loss went from {loss.first:.3f} to {loss.last:.3f}")
    )
    return f"Improvement not measured{_why_not(course)}: {went}."


def _why_not(course: Course) -> str:
    """Return why there is no win rate."""
    answered = [step for step, measured in course.evaluations.items() if measured.samples]
    if course.progress < 1 and len(answered) < 2:
        return " yet (the trained model answers at the end, or every trainer.eval_steps)"
    return " (no scorer)" if answered else " (no held-out answers)"


def _judged(estimate: Estimate) -> str:
    """Say on which side of one half the interval lies."""
    if estimate.above_half:
        return "Improved"
    return "Worse" if estimate.high is not None and estimate.high < 0.5 else "No difference shown"


def _cost(course: Course) -> str:
    parts: list[str] = []
    if (kl := course.held_out("kl")) is not None:
        parts.append(f"KL {kl[1].mean:.2f}{_interval(kl[1])} nats per response")
    if (length := course.held_out("response_length")) is not None:
        parts.append(f"answers of {length[1].mean:.1f} tokens instead of {length[0].mean:.1f}")
    seconds = course.values("train/seconds")
    if seconds:
        parts.append(f"{sum(seconds) * course.step / len(seconds):,.0f} s for {course.step:,} steps")
    return f"Cost: {', '.join(parts)}." if parts else "Cost: not measured."


def _interval(estimate: Estimate) -> str:
    return "" if estimate.low is None or estimate.high is None else f" ({estimate.low:.2f} to {estimate.high:.2f})"
