"""The page of a comparison: one self-contained HTML file, its chart as SVG, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from align.comparison.frontier import Frontier
from align.comparison.results import Results, Row
from align.evaluation.statistics import Estimate
from align.system.charts import COLOURS, svg_chart
from align.system.pages import pages

_MARKERS = "osD^vP*"
"""Fewer than colours, so that those of the same colour differ."""
COLUMNS = ("method", "score", "win\nrate", "equal\nlength", "KL", "tokens", "tax", "time", "GiB", "FLOPs")
"""Of the terminal's table."""


def page(
    found: Results,
    *,
    title: str,
    answer: Sequence[str],
    caveats: Sequence[str],
    facts: Mapping[str, str],
    answers: Any,
    start: str,
    frontiers: Mapping[str, Frontier],
) -> str:
    """Return the HTML: the answer, what weakens it, table, chart, matrix, answers side by side, how it was done."""
    environment = pages(Path(__file__).parent)
    environment.filters |= {"estimate": _estimate, "percent": _percent, "signed": _signed, "flops": _flops}
    draw = partial(draw_reward_against_kl, found=found, start=start, frontiers=frontiers)
    template = environment.get_template("page.html.jinja")
    return template.render(
        title=title,
        sentences=answer,
        caveats=caveats,
        facts=facts,
        found=found,
        rows=sorted(found.rows, key=lambda row: -row.score.mean),
        tied=set(found.ranking.tied),
        labels=[row.label for row in found.rows],
        svg=svg_chart(draw, (5.4, 4.6)),  # read on a telephone too
        has_frontiers=bool(frontiers),
        without_interval=_without_interval(found),
        answers=answers,
        start=start,
    )


def _without_interval(found: Results) -> str:
    """Why the means over prompts and runs have no interval; empty: they have one."""
    return next((row.score.reason for row in found.rows if row.score.low is None), "")


def draw_reward_against_kl(axis: Any, found: Results, start: str, frontiers: Mapping[str, Frontier]) -> None:
    """Draw a point for each seed, the mean of each contender with its interval, and frontiers, over KL.

    The names stand in a legend above, where near points cannot hide them.
    """
    from matplotlib.lines import Line2D

    axis.axhline(found.row(start).score.mean, color="#888888", linewidth=1, linestyle="--")
    legend = [Line2D([], [], color="#888888", linewidth=1, linestyle="--")]
    labels = [start]
    for i, row in enumerate(row for row in found.rows if row.kl is not None):
        colour, marker = COLOURS[i % len(COLOURS)], _MARKERS[i % len(_MARKERS)]
        points = [(one["kl"], one["score"]) for one in row.by_seed if one["kl"] is not None]
        axis.scatter(*zip(*points, strict=True), s=14, marker=marker, color=colour, alpha=0.5)
        if row.label in frontiers:
            line = [point.place for point in frontiers[row.label].line]
            axis.plot(*zip(*line, strict=True), color=colour, marker=marker, markersize=3, linewidth=1)
        assert row.kl is not None
        score = row.score
        spread = (
            None if score.low is None or score.high is None else [[score.mean - score.low], [score.high - score.mean]]
        )
        axis.errorbar(row.kl.mean, score.mean, yerr=spread, fmt=marker, markersize=7, color=colour, capsize=3)
        legend.append(Line2D([], [], color=colour, marker=marker, markersize=7, linestyle=""))
        labels.append(row.label)
    axis.set_xlabel("KL from the start model, nats per response")
    axis.set_ylabel("score by the judge")
    axis.margins(0.08)
    columns = 1 if max(map(len, labels)) > 30 else 2 if max(map(len, labels)) > 12 else 4
    shown = axis.figure.legend(legend, labels, loc="outside upper left", ncols=columns, frameon=False)
    for text in shown.get_texts():
        text.set_parse_math(False)


def _estimate(value: Estimate | None, digits: int = 3) -> str:
    if value is None:
        return "–"
    if value.low is None or value.high is None:
        return f"{value.mean:.{digits}f}"
    return f"{value.mean:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def _percent(value: Estimate | float | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, Estimate):
        if value.low is None or value.high is None:
            return f"{100 * value.mean:.1f} %"
        return f"{100 * value.mean:.1f} % [{100 * value.low:.0f}, {100 * value.high:.0f}]"
    return f"{100 * value:.0f} %"


def _signed(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def _flops(value: float) -> str:
    return f"{value:.1e}".replace("e+", "e")


def table_for_programs(found: Results) -> tuple[list[str], list[list[Any]]]:
    """Return the names and the rows of a table of plain numbers, with the bounds of the scores."""
    cost = ("seconds", "peak_bytes", "tokens_trained", "tokens_drawn", "flops")
    estimates = ("score", "gain", "win_rate", "win_rate_equal_length", "kl", "length", "accuracy")
    plain = ("p_gain", "cut_off", "tax", "distinct_2")
    rows = [
        [
            row.label,
            *(getattr(getattr(row, name), "mean", None) for name in estimates),
            row.score.low,
            row.score.high,
            *(getattr(row, name) for name in plain),
            *(getattr(row.cost, name, None) for name in cost),
        ]
        for row in found.rows
    ]
    return ["method", *estimates, "score_low", "score_high", *plain, *cost], rows


def table_of(found: Results) -> list[tuple[Row, list[str]]]:
    """Return the cells of the terminal's table, the best first; 80 columns have no room for all intervals."""
    return [
        (
            row,
            [
                f"{row.score.mean:.3f}{_half_width(row.score)}",
                _percent(None if row.win_rate is None else row.win_rate.mean),
                _percent(None if row.win_rate_equal_length is None else row.win_rate_equal_length.mean),
                "–" if row.kl is None else f"{row.kl.mean:.2f}",
                f"{row.length.mean:.0f}",
                _signed(row.tax),
                "–" if row.cost is None else f"{row.cost.seconds:,.0f} s",
                "–" if row.cost is None else f"{row.cost.peak_bytes / 2**30:.2f}",
                "–" if row.cost is None else _flops(row.cost.flops),
            ],
        )
        for row in sorted(found.rows, key=lambda row: -row.score.mean)
    ]


def _half_width(value: Estimate) -> str:
    return "" if value.low is None or value.high is None else f"±{(value.high - value.low) / 2:.3f}"
