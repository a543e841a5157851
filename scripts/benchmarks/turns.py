"""Several trainings, each in its own process, that take turns step by step."""

from __future__ import annotations

import argparse
import multiprocessing
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measuring import Measurement, peak_memory, spread

Side = Callable[["Turn", argparse.Namespace, Path], None]
"""Trains the model in the folder: ``warmup + steps`` times :meth:`Turn.begin`, a step, :meth:`Turn.end`."""


class Turn:
    """The turn of one process: waits until it may do a step, and reports the step's time and memory."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._measurement = Measurement()

    def begin(self) -> None:
        """Wait for the turn."""
        self._pipe.recv()
        self._measurement.start()

    def end(self, **told: float) -> None:
        """Report the step, with what else is told of it."""
        self._measurement.stop()
        self._pipe.send((self._measurement.seconds[-1], self._measurement.cpu_seconds[-1], peak_memory(), told))


@dataclass
class Course:
    """The measured steps of one side."""

    seconds: list[float] = field(default_factory=list[float])
    cpu_seconds: list[float] = field(default_factory=list[float])
    peak_mib: float = 0.0
    told: dict[str, list[float]] = field(default_factory=lambda: defaultdict[str, list[float]](list))
    """Other numbers of each measured step, by name."""
    first_seconds: float = 0.0
    """Time of the very first step, warm-up or not."""
    first: dict[str, float] = field(default_factory=dict[str, float])
    """Its other numbers."""

    def summary(self) -> dict[str, Any]:
        """Return the spread of the times, the peak of memory, and medians of what was told."""
        return {
            "seconds": spread(self.seconds),
            "cpu_seconds": spread(self.cpu_seconds),
            "peak_mib": self.peak_mib,
            "first_seconds": self.first_seconds,
            **{name: median(values) for name, values in self.told.items()},
        }


def take_turns(sides: Mapping[str, Side], options: argparse.Namespace, folder: Path) -> dict[str, Course]:
    """Run all sides, one step of each after the other."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for name, side in sides.items():
        pipes[name], theirs = context.Pipe()
        context.Process(target=_work, args=(side, theirs, options, folder), name=name, daemon=True).start()
        theirs.close()  # so that reading from a dead process raises an error
    courses = {name: Course() for name in sides}
    for step in range(options.warmup + options.steps):
        for name, pipe in pipes.items():
            course = courses[name]
            pipe.send(None)
            seconds, cpu_seconds, course.peak_mib, told = pipe.recv()
            if step == 0:
                course.first_seconds, course.first = seconds, told
            if step >= options.warmup:
                course.seconds.append(seconds)
                course.cpu_seconds.append(cpu_seconds)
                for what, value in told.items():
                    course.told[what].append(value)
    return courses


def _work(side: Side, pipe: Connection, options: argparse.Namespace, folder: Path) -> None:
    from benchmarks.models import quiet

    quiet(options.threads)
    side(Turn(pipe), options, folder)
