"""The course of a run: its metrics by name and its evaluations, read from its folder or added while it goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.evaluation.statistics import Estimate
from align.runs.run_folder import read_config
from align.runs.tracker import FAILED, Tracker, read_records
from align.system.files import read_json

if TYPE_CHECKING:
    from align.evaluation.measurement import Measurement, Sample

WINDOW = 5
"""Fewest steps or roll-outs averaged on each side of a comparison."""
FEWEST_ANSWERS = 16
"""Held-out answers of which rules form a share."""


@dataclass(frozen=True)
class Change:
    """A metric at the beginning and now, each the mean of a window."""

    first: float
    last: float
    error: float
    """Standard error of the difference, from the differences of neighbouring steps."""
    n: int
    """Values of the whole course."""

    @property
    def fall(self) -> float:
        """Positive where the metric has become smaller."""
        return self.first - self.last


class Course:
    """The metrics of a run so far; settings, evaluations and report as its folder has them."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """``settings``: the content of ``config.yaml``."""
        self.settings = settings
        self.evaluations: dict[int, Measurement] = {}
        self.report: Mapping[str, Any] = {}
        """The content of ``evaluation.json``; empty before the end."""
        self.failure: str | None = None
        """The error that ended the run, which has not gone on since."""
        self.step = 0
        self._values: dict[str, list[float]] = {}

    @classmethod
    def read(cls, folder: Path) -> Course:
        """Read the folder of a finished or a running run.

        Raises:
            UserError: It is not the folder of a run, or what it holds cannot be read.
        """
        course = cls(read_config(folder))
        course.add_logged(folder)
        course.report = read_json(folder / "evaluation.json", dict) or {}
        if not (folder / "final").exists():
            ended = [record for record in read_records(folder / "warnings.jsonl") if record["step"] >= course.step]
            course.failure = next((r.get("warning") for r in reversed(ended) if r.get("name") == FAILED), None)
        return course

    def add(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Add the metrics of a step, named by phase; those that are not finite are left out."""
        self.step = max(self.step, step)
        for name, value in metrics.items():
            if value is not None and math.isfinite(value):
                self._values.setdefault(name, []).append(value)

    def add_logged(self, folder: Path) -> None:
        """Add what the log in a run's folder has."""
        for record in read_records(folder / "metrics.jsonl"):
            self.add(record.pop("step"), record)
        self.evaluations = Tracker(folder, enabled=False).read_evaluations()

    # Metrics

    def values(self, name: str) -> Sequence[float]:
        """Return a metric's values, the oldest first."""
        return self._values.get(name, ())

    def has(self, source: str) -> bool:
        """Return whether there is anything of a metric or file, as `Rule.reads` names it."""
        if source == "samples.jsonl":
            return any(measured.samples for measured in self.evaluations.values())
        if source == "evaluation.json":
            return bool(self.report)
        if source.startswith("evaluation/"):  # while the run goes on, these are not among its values
            name = source.removeprefix("evaluation/")
            return any(name in measured.estimates() for measured in self.evaluations.values())
        return any(fnmatchcase(name, source) for name in self._values)

    def names(self, beginning: str) -> list[str]:
        """Return the names of the metrics that begin so."""
        return [name for name in self._values if name.startswith(beginning)]

    def first(self, name: str, window: int = WINDOW) -> float | None:
        """Return the mean of a metric's first values; None where it has none."""
        values = self.values(name)[:window]
        return sum(values) / len(values) if values else None

    def last(self, name: str, window: int = WINDOW) -> float | None:
        """Return the mean of a metric's last values; None where it has none."""
        values = self.values(name)[-window:]
        return sum(values) / len(values) if values else None

    def change(self, name: str) -> Change | None:
        """Return a metric's change from its first tenth to its last; None for fewer than two windows of values."""
        values = self.values(name)
        n = len(values)
        if n < 2 * WINDOW:
            return None
        window = max(WINDOW, n // 10)
        squares = sum((b - a) ** 2 for a, b in pairwise(values))
        noise = math.sqrt(squares / (n - 1) / 2)
        return Change(
            first=sum(values[:window]) / window,
            last=sum(values[-window:]) / window,
            error=noise * math.sqrt(2 / window),
            n=n,
        )

    # The run

    @property
    def method(self) -> Mapping[str, Any]:
        """The settings of the method."""
        return self.settings.get("method") or {}

    @property
    def resolved(self) -> Mapping[str, Any]:
        """The settings as the trainer resolved them."""
        return self.settings.get("resolved") or {}

    @property
    def progress(self) -> float:
        """Share of the steps that are done; 1 where their number is not known."""
        steps = self.resolved.get("steps")
        return self.step / steps if steps else 1.0

    @property
    def draws(self) -> bool:
        """True if the policy learns from responses that it draws while it trains."""
        return bool(self.names("rollout/"))

    # Held-out answers

    @property
    def answers(self) -> tuple[Measurement, Measurement] | None:
        """The evaluations of the start model and the latest; None without two of them that have answers."""
        found = [measured for _, measured in sorted(self.evaluations.items()) if measured.samples]
        return (found[0], found[-1]) if len(found) > 1 and 0 in self.evaluations else None

    def held_out(self, name: str) -> tuple[Estimate, Estimate] | None:
        """Return a metric of the held-out answers before and now, with intervals."""
        if self.answers is None:
            return None
        before, after = (measured.estimates().get(name) for measured in self.answers)
        return None if before is None or after is None else (before, after)

    @property
    def win_rate(self) -> tuple[str, Estimate] | None:
        """The scorer that decides, and how often the policy beats the start model by it."""
        from align.evaluation.measurement import win_rate

        found = win_rate(*self.answers) if self.answers is not None else None
        return None if found is None else (found.pop("by"), Estimate(**found))

    @property
    def telling_win_rate(self) -> tuple[str, Estimate] | None:
        """The same at the end of the run, of enough answers for a rule."""
        won = self.win_rate
        return won if won is not None and won[1].n >= FEWEST_ANSWERS and self.progress >= 1 else None

    @property
    def pair_accuracy(self) -> Estimate | None:
        """Held-out comparisons that the trained model orders as labelled; None where it was not measured."""
        reported = self.report.get("intervals", {}).get("accuracy", {}).get("after")
        if reported is not None:
            return Estimate(**reported)
        trained = [measured for step, measured in sorted(self.evaluations.items()) if step and measured.preferred]
        return trained[-1].estimates()["preference_accuracy"] if trained else None

    def cut_off(self, samples: Sequence[Sample]) -> float | None:
        """Share of answers as long as the evaluation allows; None where the limit is not known."""
        limit = (self.settings.get("evaluation") or {}).get("max_new_tokens")
        return None if limit is None else sum(sample.tokens >= limit for sample in samples) / len(samples)
