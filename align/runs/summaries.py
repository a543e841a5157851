"""The end of a run in a few numbers, and its answers as tables, for trackers to show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from align.evaluation.measurement import Measurement, Sample, showcase
from align.runs.services import Table

__all__ = ["before_after_table", "results", "samples_table"]


def samples_table(measurement: Measurement, shown: int) -> Table:
    """The first ``shown`` samples of an evaluation that :func:`showcase` chooses."""
    samples = measurement.samples
    rows = [
        [s.prompt, s.response, s.tokens, s.kl, *s.scores.values()]
        for s in (samples[i] for i in showcase(samples, shown))
    ]
    return Table("samples", ["prompt", "response", "tokens", "kl", *samples[0].scores], rows)


def before_after_table(before: Sequence[Sample], after: Sequence[Sample], shown: int) -> Table:
    """Answers of the start model and the trained one to the same prompts."""
    names = list(before[0].scores)
    columns = ["prompt", "before", "after", *(f"{name} {when}" for name in names for when in ("before", "after"))]
    rows: list[list[Any]] = []
    for old, new in ((before[i], after[i]) for i in showcase(before, shown)):
        scores = [of.scores[name] for name in names for of in (old, new)]
        rows.append([old.prompt, old.response, new.response, *scores, new.kl])
    return Table("before_and_after", [*columns, "kl after"], rows)


def results(evaluation: Mapping[str, Any], measured: Sequence[Measurement]) -> dict[str, float]:
    """Sum a run up: the win rate with its interval, the best evaluation by each score, the method's own report."""
    out: dict[str, float] = {}
    if (win := evaluation.get("win_rate")) is not None:
        out = {f"win_rate{end}": float(win[key]) for key, end in _WIN_RATE.items() if win[key] is not None}
    better = [*(measured[0].samples[0].scores if measured and measured[0].samples else ()), "preference_accuracy"]
    for name in better:
        found = [value for one in measured if math.isfinite(value := one.metrics().get(name, math.nan))]
        if found:
            out[f"best/{name}"] = max(found)
    own = {name: row.get("after") for name, row in evaluation.get("metrics", {}).items()}
    known = measured[-1].metrics() if measured else {}
    return out | {f"after/{name}": value for name, value in own.items() if value is not None and name not in known}


_WIN_RATE = {"mean": "", "low": "/low", "high": "/high", "n": "/n"}
"""Parts of the win rate of ``evaluation.json``, and what their names end in."""
