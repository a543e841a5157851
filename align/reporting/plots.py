"""Curves of one run or several, on one axis for each metric, and bars with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from markupsafe import Markup

from align.evaluation.statistics import Estimate
from align.reporting.record import Record
from align.runs.report import MEANINGS, MODELS, NOISY, UNSMOOTHED, curves, format_number, smoothed
from align.system.charts import COLOURS, svg_chart

__all__ = ["LINES", "Bar", "Bars", "Curve", "bars_of", "curves_of"]

LINES = ("solid", "dashed", "dotted", "dashdot")
_SIZE = (3.6, 2.1)
_BEFORE = "before"
_BUCKETS = 150
"""A curve is drawn with at most twice as many points, the extremes of as many stretches."""


@dataclass(frozen=True)
class Curve:
    """A metric over the steps."""

    name: str
    svg: Markup
    words: Sequence[str]
    """The same for those who do not see it: one sentence for each run."""


def curves_of(records: Sequence[Record]) -> list[Curve]:
    """Return a chart for each metric that is a curve in one of the runs."""
    found = [curves(record.metrics) for record in records]
    names = dict.fromkeys(name for of in found for name in of)
    out: list[Curve] = []
    for name in names:
        lines = {place: of[name] for place, of in enumerate(found) if name in of}
        draw = partial(_draw, lines=lines, smooth=name not in UNSMOOTHED, alone=len(records) == 1)
        words = [_in_words(points, records[place].name if len(records) > 1 else "") for place, points in lines.items()]
        out.append(Curve(name, svg_chart(draw, _SIZE), words))
    return out


def _draw(axis: Any, *, lines: Mapping[int, Sequence[tuple[int, float]]], smooth: bool, alone: bool) -> None:
    for place, points in lines.items():
        steps, values = zip(*points, strict=True)
        noisy = smooth and len(points) > NOISY
        colour, marker = COLOURS[place % len(COLOURS)], "o" if len(points) <= NOISY else ""
        style = LINES[place % len(LINES)]
        if noisy and alone:
            axis.plot(*_extremes(steps, values), color=colour, linewidth=0.7, alpha=0.4)
        main = smoothed(values) if noisy else values
        axis.plot(*_extremes(steps, main), color=colour, linewidth=1.6, marker=marker, markersize=3, linestyle=style)
    axis.tick_params(labelsize=9)
    axis.set_xlabel("step", fontsize=9)
    axis.xaxis.get_major_locator().set_params(integer=True)


def _extremes(steps: Sequence[int], values: Sequence[float]) -> tuple[list[int], list[float]]:
    """Return the curve, of a long one the lowest and the highest point of each stretch."""
    if len(steps) <= 2 * _BUCKETS:
        return list(steps), list(values)
    width = -(-len(steps) // _BUCKETS)
    places = [
        place
        for begin in range(0, len(steps), width)
        for stretch in [range(begin, min(begin + width, len(steps)))]
        for place in sorted({min(stretch, key=values.__getitem__), max(stretch, key=values.__getitem__)})
    ]
    return [steps[place] for place in places], [values[place] for place in places]


def _in_words(points: Sequence[tuple[int, float]], run: str) -> str:
    (first, begin), (last, end) = points[0], points[-1]
    values = [value for _, value in points]
    return (
        (f"{run}: " if run else "")
        + f"from {begin:.3g} at step {first:,} to {end:.3g} at step {last:,}; between {min(values):.3g} and "
        + f"{max(values):.3g}"
    )


@dataclass(frozen=True)
class Bar:
    """A value with its 95 % interval, and where they are on the axis of its metric, in percent of its length."""

    label: str
    value: str
    interval: str
    count: str
    start: float
    end: float
    low: float | None
    high: float | None
    is_before: bool
    """Of the start model."""


@dataclass(frozen=True)
class Bars:
    """A metric of the evaluation."""

    name: str
    meaning: str
    bars: Sequence[Bar]
    mark: float | None = None
    """Place of the value that says nothing."""


def bars_of(records: Sequence[Record]) -> list[Bars]:
    """Return the metrics of ``evaluation.json``: of one run before and after, of several those that differ."""
    out: list[Bars] = []
    wins = [(record, record.evaluation["win_rate"]) for record in records if "win_rate" in record.evaluation]
    if wins:
        rows = [
            (record.name if len(records) > 1 else "trained model", win["mean"], Estimate(**_interval(win)))
            for record, win in wins
        ]
        by = ", ".join(dict.fromkeys(win["by"] for _, win in wins))
        out.append(
            _bars("win rate", f"over {MODELS[0]}, by {by}; 50 % is no difference", rows, ends=(0.0, 1.0), mark=0.5)
        )
    for name in dict.fromkeys(name for record in records for name in record.evaluation.get("metrics", {})):
        rows = _rows(records, name)
        if rows:
            out.append(_bars(name, MEANINGS.get(name, ""), rows))
    return out


def _rows(records: Sequence[Record], name: str) -> list[tuple[str, float, Estimate | None]]:
    """Return label, value and interval of each bar; what all runs began with stands there once."""
    rows: list[tuple[str, float, Estimate | None]] = []
    of = [
        (record.name, record.evaluation["metrics"].get(name, {}), record.evaluation.get("intervals", {}).get(name, {}))
        for record in records
        if "metrics" in record.evaluation
    ]
    same = len({values.get(_BEFORE) for _, values, _ in of}) == 1
    for place, (run, values, intervals) in enumerate(of):
        for kind, value in values.items():
            if value is None or (kind == _BEFORE and same and place):
                continue
            label = kind if len(records) == 1 or (kind == _BEFORE and same) else f"{run}, {kind}"
            found = intervals.get(kind)
            rows.append((label, value, None if found is None else Estimate(**_interval(found))))
    return rows


def _interval(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in ("mean", "low", "high", "n")}


def _bars(
    name: str,
    meaning: str,
    rows: Sequence[tuple[str, float, Estimate | None]],
    *,
    ends: tuple[float, float] | None = None,
    mark: float | None = None,
) -> Bars:
    reached = [value for _, value, _ in rows]
    reached += [bound for _, _, e in rows if e is not None for bound in (e.low, e.high) if bound is not None]
    low, high = ends or (min(0.0, *reached), max(0.0, *reached))
    length = high - low or 1.0

    def place(value: float) -> float:
        return round(100 * min(1.0, max(0.0, (value - low) / length)), 2)

    bars: list[Bar] = []
    for label, value, e in rows:
        start, end = sorted((place(0.0), place(value)))
        interval, bounds = "", (None, None)
        if e is not None and e.low is not None and e.high is not None:
            interval, bounds = f"[{e.low:.3f}, {e.high:.3f}]", (place(e.low), place(e.high))
        count = "" if e is None else f"{e.n:,}"
        bars.append(Bar(label, format_number(value), interval, count, start, end, *bounds, label.endswith(_BEFORE)))
    return Bars(name, meaning, bars, None if mark is None else place(mark))
