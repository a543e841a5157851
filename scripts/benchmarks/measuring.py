"""Measurements of time and memory, their spread, and the result of a benchmark."""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any


@dataclass
class Measurement:
    """Time and padded tokens of each step, warm-up included."""

    seconds: list[float] = field(default_factory=list[float])
    cpu_seconds: list[float] = field(default_factory=list[float])
    """CPU time of all threads of the process; with one thread, a busy machine distorts it least."""
    tokens: list[int] = field(default_factory=list[int])
    """Tokens of one forward pass over the step's pairs, including padding; the reference computes them again."""

    def start(self) -> None:
        """Start measuring a step."""
        self._started = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """Stop measuring the step."""
        self.seconds.append(time.perf_counter() - self._started[0])
        self.cpu_seconds.append(time.process_time() - self._started[1])

    def summary(self, measured: slice) -> dict[str, Any]:
        """Return quartiles of the times and the median of the tokens of the measured steps."""
        return {
            "seconds": spread(self.seconds[measured]),
            "cpu_seconds": spread(self.cpu_seconds[measured]),
            "padded_tokens": median(self.tokens[measured]),
        }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, quartiles and extremes."""
    q1, _, q3 = quantiles(values, method="inclusive") if len(values) > 1 else (values[0],) * 3
    return {"median": median(values), "q1": q1, "q3": q3, "min": min(values), "max": max(values)}


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Return the spread of the step-by-step ratios."""
    return spread([a / b for a, b in zip(ours, theirs, strict=True)])


def peak_memory() -> float:
    """Return the peak of this process's resident memory in MiB (Linux: VmHWM)."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1]) / 1024


def versions() -> dict[str, str]:
    """Return the versions of the compared libraries."""
    return {name: version(name) for name in ("torch", "transformers", "peft", "trl")}


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options of a benchmark for its result; of a path only the name, of a file with its folder's."""
    skipped = ("benchmark", "json", "output")
    return {name: _shown(value) for name, value in vars(options).items() if name not in skipped}


def _shown(value: Any) -> Any:
    if isinstance(value, Path):
        return value.name if value.is_dir() else "/".join(value.parts[-2:])
    return value


def quartiles(values: dict[str, float], digits: int = 3) -> str:
    """Return the quartiles of a `spread` as text."""
    return f"{values['q1']:.{digits}f} – {values['q3']:.{digits}f}"


def report(result: dict[str, Any], options: argparse.Namespace, print_table: Callable[[dict[str, Any]], None]) -> None:
    """Print a result as JSON or as a table."""
    print(json.dumps(result)) if options.json else print_table(result)
