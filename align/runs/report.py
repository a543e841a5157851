"""The results of a run for a person: curves, the table of before and after, samples side by side."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from align.evaluation.measurement import Measurement, Sample, showcase
from align.evaluation.statistics import DISTINCT_OF, Estimate
from align.runs.tracker import Tracker, read_records
from align.system.charts import chart
from align.system.files import read_json
from align.system.terminal import visible

MODELS = ("the start model", "the trained model")
MEANINGS = {
    "true_reward": "quality in the embedded world, 0 to 1",
    "kl": "divergence from the reference (or the start model), nats per response",
    "response_length": "tokens",
    "distinct_2": f"share of word pairs that differ, in {DISTINCT_OF} responses",
    "preference_accuracy": "held-out pairs ranked as labelled",
    "likelihood_accuracy": "held-out comparisons whose preferred response is likelier per token",
    "accuracy": "held-out comparisons ordered as labelled",
    "position_bias": "preference for the response it reads first; 0 is none",
    "expected_calibration_error": "distance of its confidence from its accuracy",
    "calibration_error_if_calibrated": "the same of a calibrated model on this many comparisons",
    "temperature": "that corrects its confidence; above 1 it is overconfident",
}
_FIRST_CURVES = ("train/loss", "heldout/loss", "train/accuracy", "heldout/accuracy")
_LAST_CURVES = (
    "train/rewards/accuracies",
    "train/rewards/margins",
    "train/nll_per_token",
    "rollout/objective/scores",
    "rollout/objective/kl",
    "train/policy/entropy",
    "rollout/tokens/lengths",
    "rollout/val/num_eos_tokens",
    "train/policy/clipfrac",
    "rollout/val/explained_variance",
    "rollout/identical",
    "train/grad_norm",
    "train/learning_rate",
)

UNSMOOTHED = ("train/learning_rate",)
NOISY = 20
"""A curve of more points is smoothed."""
_SCORE = re.compile(r"evaluation/(?!.*_pairs$).*|rollout/scores/(?!.*/(std|milliseconds)$).*")
"""Scores on held-out prompts; of roll-outs, the means alone."""
_WIN_RATE = "win_rate"
_WIDE = 100
"""Columns of a terminal in which a metric's meaning has room beside it."""
_BARS = ("#a8b2bd", "#1f77b4")  # before, after


def print_evaluation(
    report: Mapping[str, Any],
    console: Console,
    *,
    title: str = "Before and after training, held-out data",
    models: tuple[str, str] = MODELS,
) -> None:
    """Print the metrics with 95 % intervals, one column for each time or model, and the win rate in a sentence."""
    metrics: Mapping[str, Mapping[str, float | None]] = report.get("metrics", {})
    found = report.get("intervals", {})
    kinds = [
        kind for kind in next(iter(metrics.values()), {}) if any(row[kind] is not None for row in metrics.values())
    ]
    table = Table(title=title, title_justify="left")
    table.add_column("metric", no_wrap=True)
    for kind in kinds:
        table.add_column(kind, justify="right", no_wrap=True)
    table.add_column("n", justify="right")
    beside = console.width >= _WIDE
    if beside:
        table.add_column("meaning")
    meanings = {name: MEANINGS.get(name, "") for name in metrics}
    for name, row in metrics.items():
        of = found.get(name, {})
        cells = [format_metric(row[kind], of.get(kind)).replace(" [", "\n[") for kind in kinds]
        table.add_row(name, *cells, format_count(of), *([meanings[name]] if beside else ()))
    if table.row_count:
        console.print(table)
    below = [] if beside else [f"{name}: {meaning}" for name, meaning in meanings.items() if meaning]
    for note in (*below, *report.get("notes", ()), *win_rate_sentences(report, models)):
        console.print(note, markup=False, highlight=False)


def win_rate_sentences(report: Mapping[str, Any], models: tuple[str, str] = MODELS) -> list[str]:
    """Say how often the second of two models beats the first, and those beside it, with intervals.

    ``report`` is the content of ``evaluation.json``; the name of the first model (``over``) is given where it is known.
    """
    return [
        _win_rate_sentence(win, models[1], over)
        for win, over in (
            *([(report["win_rate"], models[0])] if "win_rate" in report else []),
            *((win, win["role"]) for win in report.get("win_rates_beside", ())),
        )
    ]


def _win_rate_sentence(win: Mapping[str, Any], model: str, over: str) -> str:
    over = f"{over} ({win['over']})" if win.get("over") else over
    estimate = Estimate(win["mean"], win["low"], win["high"], win["n"], win.get("runs", 1))
    return f"Win rate of {model} over {over}, by {win['by']}: {estimate.percent('prompts; 50 % is no difference')}."


def print_samples(before: Sequence[Sample], after: Sequence[Sample], console: Console, *, limit: int) -> None:
    """Print answers of the start model and of the trained one to the same prompts."""
    table = Table(title="Answers to the same prompts", title_justify="left", show_lines=True)
    for column in ("prompt", "before", "after"):
        table.add_column(column, overflow="fold", ratio=1)
    for i in showcase(before, limit):
        old, new = before[i], after[i]
        table.add_row(_plain(_end(old.prompt)), _plain(_with_scores(old)), _plain(_with_scores(new)))
    console.print(table)


def plot_curves(folder: Path) -> None:
    """Draw ``curves.png``: a panel for each metric of the run in ``folder``.

    A metric that was measured before and after training only is shown as two bars, with the 95 % interval of the mean
    where the samples give one; so is the win rate.
    """
    panels = _panels(folder)
    if not panels:
        return
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    with chart(folder / "curves.png", (4.6 * columns, 3.0 * rows), rows=rows, columns=columns) as axes:
        for axis, (title, draw) in zip(axes, panels.items(), strict=False):
            draw(axis)
            axis.set_title(title, fontsize=10)
            axis.tick_params(labelsize=8)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        axes[0].figure.suptitle(folder.name, fontsize=11)


def _panels(folder: Path) -> dict[str, Callable[[Any], None]]:
    """Title of each panel, and the function that draws it on an axis."""
    tracker = Tracker(folder, enabled=False)
    records, evaluations = read_records(tracker.metrics), tracker.read_evaluations()
    result: Mapping[str, Any] = read_json(folder / "evaluation.json") or {}
    scored = sorted({name for record in records for name in record if _SCORE.fullmatch(name)})
    panels: dict[str, Callable[[Any], None]] = {}
    for name in (*_FIRST_CURVES, *scored, _WIN_RATE, *_LAST_CURVES):
        points = _points(records, name)
        if name == _WIN_RATE and (win := result.get("win_rate")):
            panels[f"win rate by {win['by']}"] = partial(_draw_win_rate, win=win)
        elif _is_before_and_after(points):
            found = [_estimate(evaluations.get(step), name) for step, _ in points]
            panels[name] = partial(_draw_bars, values=[value for _, value in points], estimates=found)
        elif len(points) > 1:
            panels[name] = partial(_draw_curve, points=points, smooth=name not in UNSMOOTHED)
    return panels


def curves(records: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Return step and value of each metric of ``metrics.jsonl`` that is shown as a curve, in the order to show."""
    scored = sorted({name for record in records for name in record if _SCORE.fullmatch(name)})
    points = {name: _points(records, name) for name in (*_FIRST_CURVES, *scored, *_LAST_CURVES)}
    return {name: found for name, found in points.items() if len(found) > 1 and not _is_before_and_after(found)}


def _points(records: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    return [(record["step"], record[name]) for record in records if record.get(name) is not None]


def _is_before_and_after(points: Sequence[tuple[int, float]]) -> bool:
    return len(points) == 2 and points[0][0] == 0


def _draw_curve(axis: Any, *, points: Sequence[tuple[int, float]], smooth: bool) -> None:
    steps, values = zip(*points, strict=True)
    noisy = smooth and len(points) > NOISY
    axis.plot(steps, values, linewidth=0.8, alpha=0.35 if noisy else 1, marker="o" if len(points) < NOISY else "")
    if noisy:
        axis.plot(steps, smoothed(values), linewidth=1.8)
    axis.set_xlabel("step", fontsize=8)


def _draw_bars(axis: Any, *, values: Sequence[float], estimates: Sequence[Estimate | None]) -> None:
    names: list[str] = []
    for place, (color, value, estimate) in enumerate(zip(_BARS, values, estimates, strict=True)):
        axis.bar(place, value, width=0.55, color=color)
        names.append(f"{('before', 'after')[place]}\n{format_number(value)}")
        if estimate is not None and estimate.low is not None and estimate.high is not None:
            low, high = value - estimate.low, estimate.high - value
            axis.errorbar(place, value, yerr=[[low], [high]], color="black", capsize=4, linewidth=1)
            names[-1] += f" [{estimate.low:.3f}, {estimate.high:.3f}], n = {estimate.n}"
    _name_bars(axis, names)


def _draw_win_rate(axis: Any, *, win: Mapping[str, Any]) -> None:
    mean, low, high = win["mean"], win["low"], win["high"]
    axis.bar(0, mean, width=0.3, color=_BARS[1])
    axis.errorbar(0, mean, yerr=[[mean - low], [high - mean]], color="black", capsize=4, linewidth=1)
    axis.axhline(0.5, color="grey", linestyle="--", linewidth=1)
    axis.set_ylim(0, 1)
    _name_bars(axis, [f"after against before\n{mean:.3f} [{low:.3f}, {high:.3f}], n = {win['n']}"])


def _name_bars(axis: Any, names: Sequence[str]) -> None:
    axis.set_xticks(range(len(names)), names, fontsize=7)
    axis.set_xlim(-0.6, len(names) - 0.4)
    axis.grid(visible=False, axis="x")


def _estimate(measurement: Measurement | None, name: str) -> Estimate | None:
    """The interval of a curve's metric, where it is a mean or a rate of an evaluation."""
    return None if measurement is None else measurement.estimates().get(name.removeprefix("evaluation/"))


def smoothed(values: Sequence[float]) -> list[float]:
    """Exponential average over about a twentieth of the curve."""
    alpha, out = min(1.0, 20 / len(values)), [values[0]]
    for value in values[1:]:
        out.append(out[-1] + alpha * (value - out[-1]))
    return out


def format_number(value: float | None) -> str:
    """Format a number for a table; None is a dash."""
    return "–" if value is None else f"{value:.3f}"


def format_metric(value: float | None, estimate: Mapping[str, Any] | None) -> str:
    """Format a metric with its interval where ``intervals`` of ``evaluation.json`` has one."""
    if estimate is None or estimate["low"] is None:
        return format_number(value)
    return f"{format_number(value)} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def format_count(estimates: Mapping[str, Mapping[str, Any]]) -> str:
    """Format the number of prompts, pairs or comparisons of a metric's ``intervals``."""
    return " / ".join(dict.fromkeys(f"{estimate['n']:,}" for estimate in estimates.values()))


def _with_scores(sample: Sample) -> str:
    scores = "  ".join(f"{name} {value:.2f}" for name, value in sample.scores.items())
    return f"{_beginning(sample.response)}\n({scores})" if scores else _beginning(sample.response)


def _end(text: str, length: int = 300) -> str:
    """The end of a long conversation, where the question is."""
    return text if len(text) <= length else f"… {text[-length:]}"


def _beginning(text: str, length: int = 600) -> str:
    return text if len(text) <= length else f"{text[:length]} …"


def _plain(text: str) -> Text:
    """Model text must not act on the terminal: control characters are shown, markup is not interpreted."""
    return Text(visible(text))
