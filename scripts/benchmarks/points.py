"""Benchmarks with one point per training: files, chart and table."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from align.system import charts
from benchmarks.models import quiet

Points = dict[str, dict[str, Any]]
"""Name of a training → its results; intervals are those of `align.evaluation.statistics`."""


def bench_points(
    name: str,
    options: argparse.Namespace,
    *,
    measure: Callable[[argparse.Namespace], Points],
    settings: Mapping[str, Any],
    plot: Callable[[Points, Path], None],
    print_table: Callable[[Points], None],
) -> None:
    """Run the trainings in ``options.output``, write result and chart there, and print the result.

    Candidates of an earlier run are deleted, so that they are not reused.
    """
    quiet(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    for earlier in options.output.glob("candidates-*"):
        earlier.unlink()
    with redirect_stdout(sys.stderr):  # output of the trainer
        points = measure(options)
    result = {"benchmark": name, "settings": settings, "points": points}
    (options.output / f"{name}.json").write_text(json.dumps(result, indent=2), encoding="utf-8")
    picture = options.output / f"{name}.png"
    plot(points, picture)
    if options.json:
        print(json.dumps(result))
    else:
        print_table(points)
        print(f"Chart: {picture}")


def chart(points: Mapping[str, Mapping[str, Any]], across: str, up: str, picture: Path, **words: str) -> None:
    """Plot one value of each point against another, with 95 % intervals if there are any.

    Args:
        points: The points.
        across: Name of the value on the x axis.
        up: Name of the value on the y axis.
        picture: File to write.
        words: ``xlabel``, ``ylabel`` and ``title``.
    """
    with charts.chart(picture, (8.5, 4.5)) as (axis,):
        for name, point in points.items():
            (x, xerr), (y, yerr) = _with_error(point[across]), _with_error(point[up])
            axis.errorbar(x, y, xerr=xerr, yerr=yerr, marker="o", capsize=2, linestyle="none", label=name)
        axis.set(**words)
        axis.figure.legend(loc="outside right upper")


def interval(value: Mapping[str, float]) -> str:
    """Return a mean with its interval as text."""
    return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def _with_error(value: float | Mapping[str, float]) -> tuple[float, list[list[float]] | None]:
    if not isinstance(value, Mapping):
        return value, None
    mean = value["mean"]
    return mean, [[mean - value["low"]], [value["high"] - mean]]
