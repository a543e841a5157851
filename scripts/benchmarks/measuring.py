"""What was measured: times, memory and their spread."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
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
    """Of all threads of the process: what a busy machine distorts least, with one thread."""
    tokens: list[int] = field(default_factory=list[int])
    """Tokens of one forward pass over the step's pairs, padding included; the reference computes them once more."""

    def start(self) -> None:
        """Begin to measure a step."""
        self._started = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """End the step that was begun."""
        self.seconds.append(time.perf_counter() - self._started[0])
        self.cpu_seconds.append(time.process_time() - self._started[1])

    def summary(self, measured: slice) -> dict[str, Any]:
        """Quartiles of the times and the median of the tokens of the measured steps."""
        return {
            "seconds": spread(self.seconds[measured]),
            "cpu_seconds": spread(self.cpu_seconds[measured]),
            "padded_tokens": median(self.tokens[measured]),
        }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and extremes."""
    q1, _, q3 = quantiles(values, method="inclusive") if len(values) > 1 else (values[0],) * 3
    return {"median": median(values), "q1": q1, "q3": q3, "min": min(values), "max": max(values)}


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Spread of the ratios, step by step."""
    return spread([a / b for a, b in zip(ours, theirs, strict=True)])


def mean_interval(values: Sequence[float]) -> dict[str, float]:
    """Mean with its 95 % bootstrap interval; the mean alone where all values are the same."""
    import numpy as np
    from scipy.stats import bootstrap

    mean = float(np.mean(values))
    if min(values) == max(values):
        return {"mean": mean, "low": mean, "high": mean}
    low, high = bootstrap((values,), np.mean, rng=np.random.default_rng(0)).confidence_interval
    return {"mean": mean, "low": float(low), "high": float(high)}


def peak_memory() -> float:
    """Most memory that was resident in this process so far, in MiB (Linux: VmHWM)."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1]) / 1024


def versions() -> dict[str, str]:
    """Of what is compared."""
    return {name: version(name) for name in ("torch", "transformers", "peft", "trl")}
