"""The results of a run for a person: curves, the table of before and after, samples side by side."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from align.evaluation.measurement import Measurement, Sample, showcase
from align.runs.tracker import Tracker, read_records
from align.system.charts import chart
from align.system.files import read_json

MODELS = ("the start model", "the trained model")
_MEANINGS = {
    "true_reward": "quality in the embedded world, 0 to 1",
    "kl": "distance from the start model, nats per response",
    "response_length": "tokens",
    "distinct_2": "share of word pairs that differ",
    "preference_accuracy": "held-out pairs ranked as labelled",
    "likelihood_accuracy": "held-out comparisons whose preferred response is likelier per token",
    "accuracy": "held-out comparisons ordered as labelled",
    "position_bias": "preference for the response it reads first; 0 is none",
    "expected_calibration_error": "distance of its confidence from its accuracy",
    "temperature": "that corrects its confidence; above 1 it is overconfident",
}
_FIRST_CURVES = ("loss", "eval/loss", "accuracy", "eval/accuracy")
_LAST_CURVES = (
    "rewards/accuracies",
    "rewards/margins",
    "nll_per_token",
    "objective/scores",
    "objective/kl",
    "policy/entropy",
    "tokens/lengths",
    "val/num_eos_tokens",
    "policy/clipfrac",
    "val/explained_variance",
    "rollout/identical",
    "grad_norm",
    "learning_rate",
)

_SCORE = re.compile(r"evaluation/.*|scores/(?!.*/(std|milliseconds)$).*")  # held out; of roll-outs, the means alone
_WIN_RATE = "win_rate"
_PREFERENCE = "evaluation/preference_accuracy"
_BARS = ("#a8b2bd", "#1f77b4")  # before, after


def print_evaluation(
    report: Mapping[str, Any],
    console: Console,
    *,
    title: str = "Before and after training, held-out data",
    models: tuple[str, str] = MODELS,
) -> None:
    """Print the metrics as a table, one column for each time or model, and the win rate in a sentence."""
    metrics: Mapping[str, Mapping[str, float | None]] = report.get("metrics", {})
    kinds = [
        kind for kind in next(iter(metrics.values()), {}) if any(row[kind] is not None for row in metrics.values())
    ]
    table = Table(title=title, title_justify="left")
    table.add_column("metric")
    for kind in kinds:
        table.add_column(kind, justify="right")
    table.add_column("meaning")
    for name, row in metrics.items():
        table.add_row(name, *(format_number(row[kind]) for kind in kinds), _MEANINGS.get(name, ""))
    if table.row_count:
        console.print(table)
    if "win_rate" in report:
        console.print(win_rate_sentence(report["win_rate"], models))


def win_rate_sentence(win: Mapping[str, Any], models: tuple[str, str] = MODELS) -> str:
    """Say how often the second of two models beats the first, with the interval.

    ``win`` is the entry ``win_rate`` of ``evaluation.json``.
    """
    counted = "pairs" if win["by"] == "likelihood" else "prompts"
    return (
        f"Win rate of {models[1]} over {models[0]}, by {win['by']}: {win['mean']:.1%} "
        f"(95 % interval {win['low']:.1%} to {win['high']:.1%}, {win['n']} {counted}; 50 % is no difference)."
    )


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
        points = [(record["step"], record[name]) for record in records if record.get(name) is not None]
        if name == _WIN_RATE and (win := result.get("win_rate")):
            panels[f"win rate by {win['by']}"] = partial(_draw_win_rate, win=win)
        elif len(points) == 2 and points[0][0] == 0:
            errors = [_half_interval(evaluations.get(step), name) for step, _ in points]
            if name == _PREFERENCE and (pairs := result.get("n", {}).get("pairs")):
                errors = [_half_interval_of_share(share, pairs) for _, share in points]
            panels[name] = partial(_draw_bars, values=[value for _, value in points], errors=errors)
        elif len(points) > 1:
            panels[name] = partial(_draw_curve, points=points, smooth=name != "learning_rate")
    return panels


def _draw_curve(axis: Any, *, points: Sequence[tuple[int, float]], smooth: bool) -> None:
    steps, values = zip(*points, strict=True)
    noisy = smooth and len(points) > 20
    axis.plot(steps, values, linewidth=0.8, alpha=0.35 if noisy else 1, marker="o" if len(points) < 20 else "")
    if noisy:
        axis.plot(steps, _smooth(values), linewidth=1.8)
    axis.set_xlabel("step", fontsize=8)


def _draw_bars(axis: Any, *, values: Sequence[float], errors: Sequence[float | None]) -> None:
    for place, (color, value, error) in enumerate(zip(_BARS, values, errors, strict=True)):
        axis.bar(place, value, width=0.55, color=color)
        if error is not None:
            axis.errorbar(place, value, yerr=error, color="black", capsize=4, linewidth=1)
    numbers = [
        format_number(value) + ("" if error is None else f" ± {error:.3f}")
        for value, error in zip(values, errors, strict=True)
    ]
    _name_bars(axis, [f"{when}\n{shown}" for when, shown in zip(("before", "after"), numbers, strict=True)])


def _draw_win_rate(axis: Any, *, win: Mapping[str, Any]) -> None:
    mean, low, high = win["mean"], win["low"], win["high"]
    axis.bar(0, mean, width=0.3, color=_BARS[1])
    axis.errorbar(0, mean, yerr=[[mean - low], [high - mean]], color="black", capsize=4, linewidth=1)
    axis.axhline(0.5, color="grey", linestyle="--", linewidth=1)
    axis.set_ylim(0, 1)
    _name_bars(axis, [f"after against before\n{mean:.3f} [{low:.3f}, {high:.3f}]"])


def _name_bars(axis: Any, names: Sequence[str]) -> None:
    axis.set_xticks(range(len(names)), names)
    axis.set_xlim(-0.6, len(names) - 0.4)
    axis.grid(visible=False, axis="x")


def _half_interval(measurement: Measurement | None, name: str) -> float | None:
    """Half the width of the 95 % t-interval of a mean over samples; None if the metric is not a mean over samples."""
    from scipy.stats import sem, t

    name = name.removeprefix("evaluation/")
    of_sample: dict[str, Callable[[Sample], float | None]] = {
        "kl": lambda sample: sample.kl,
        "response_length": lambda sample: sample.tokens,
    }
    read = of_sample.get(name, lambda sample: sample.scores.get(name))
    found = [read(sample) for sample in measurement.samples] if measurement is not None else []
    values = [value for value in found if value is not None]
    return float(t.ppf(0.975, len(values) - 1) * sem(values)) if len(values) > 1 else None


def _half_interval_of_share(share: float, n: int) -> float:
    """Half the width of the 95 % normal interval of a share of n; ties, which count half, make the true one smaller."""
    from scipy.stats import norm

    return float(norm.ppf(0.975) * math.sqrt(share * (1 - share) / n))


def _smooth(values: Sequence[float]) -> list[float]:
    """Exponential average over about a twentieth of the curve."""
    alpha, out = min(1.0, 20 / len(values)), [values[0]]
    for value in values[1:]:
        out.append(out[-1] + alpha * (value - out[-1]))
    return out


def format_number(value: float | None) -> str:
    """Format a number for a table; None is a dash."""
    return "–" if value is None else f"{value:.3f}"


def _with_scores(sample: Sample) -> str:
    scores = "  ".join(f"{name} {value:.2f}" for name, value in sample.scores.items())
    return f"{_beginning(sample.response)}\n({scores})" if scores else _beginning(sample.response)


def _end(text: str, length: int = 300) -> str:
    """The end of a long conversation, where the question is."""
    return text if len(text) <= length else f"… {text[-length:]}"


def _beginning(text: str, length: int = 600) -> str:
    return text if len(text) <= length else f"{text[:length]} …"


def _plain(text: str) -> str:
    """Model text must not act on the terminal: control characters are shown, markup is not interpreted."""
    from rich.markup import escape

    visible = "".join(c if c == "\n" or c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return escape(visible)
