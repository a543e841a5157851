"""What a run shows a person: curves, the table of before and after, samples side by side."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from align.evaluation.measurement import Sample, showcase
from align.runs.tracker import read_records

# What a newcomer needs to read the table.
_MEANINGS = {
    "true_reward": "quality in the embedded world, 0 to 1",
    "kl": "distance from the start model, nats per response",
    "response_length": "tokens",
    "distinct_2": "share of word pairs that differ",
    "preference_accuracy": "held-out pairs ranked as labelled",
    "likelihood_accuracy": "held-out comparisons whose preferred response is likelier per token",
    "accuracy": "held-out comparisons ordered as labelled",
    "position_bias": "by how much it prefers what it reads first; 0 is right",
    "expected_calibration_error": "how far its confidence is from its accuracy",
    "temperature": "that would mend its confidence; above 1 it is too sure",
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


def print_evaluation(
    report: Mapping[str, Any],
    console: Console,
    *,
    title: str = "Before and after training, held-out data",
    models: tuple[str, str] = ("the start model", "the trained model"),
) -> None:
    """The metrics as a table, one column for each time or model they are of, and the win rate in a sentence."""
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
        table.add_row(name, *(_number(row[kind]) for kind in kinds), _MEANINGS.get(name, ""))
    if table.row_count:
        console.print(table)
    if "win_rate" in report:
        win = report["win_rate"]
        counted = "pairs" if win["by"] == "likelihood" else "prompts"
        console.print(
            f"Win rate of {models[1]} over {models[0]}, by {win['by']}: {win['mean']:.1%} "
            f"(95 % interval {win['low']:.1%} to {win['high']:.1%}, {win['n']} {counted}; 50 % is no difference)."
        )


def print_samples(before: Sequence[Sample], after: Sequence[Sample], console: Console, *, limit: int) -> None:
    """Answers of the start model and of the trained one to the same prompts."""
    table = Table(title="Answers to the same prompts", title_justify="left", show_lines=True)
    for column in ("prompt", "before", "after"):
        table.add_column(column, overflow="fold", ratio=1)
    for i in showcase(before, limit):
        old, new = before[i], after[i]
        table.add_row(_plain(_end(old.prompt)), _plain(_with_scores(old)), _plain(_with_scores(new)))
    console.print(table)


def plot_curves(metrics: Path, picture: Path) -> None:
    """``curves.png``: the training metrics over steps, one small panel each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    records = read_records(metrics)
    scored = sorted({name for record in records for name in record if _SCORE.fullmatch(name)})
    names = (*_FIRST_CURVES, *scored, *_LAST_CURVES)
    present = [name for name in names if sum(name in record for record in records) > 1]
    if not present:
        return
    columns = min(4, len(present))
    rows = -(-len(present) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.0 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(rows, columns, squeeze=False)
    for axis, name in zip(axes.flat, present, strict=False):
        points = [(record["step"], record[name]) for record in records if name in record]
        steps, values = zip(*points, strict=True)
        noisy = len(points) > 20 and name != "learning_rate"
        axis.plot(steps, values, linewidth=0.8, alpha=0.35 if noisy else 1, marker="o" if len(points) < 20 else "")
        if noisy:
            axis.plot(steps, _smooth(values), linewidth=1.8)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("step", fontsize=8)
        axis.grid(alpha=0.25)
        axis.tick_params(labelsize=8)
    for axis in axes.flat[len(present) :]:
        axis.set_visible(False)
    figure.suptitle(metrics.parent.name, fontsize=11)
    figure.savefig(picture, dpi=120)


def _smooth(values: Sequence[float]) -> list[float]:
    """Exponential average over about a twentieth of the curve."""
    alpha, out = min(1.0, 20 / len(values)), [values[0]]
    for value in values[1:]:
        out.append(out[-1] + alpha * (value - out[-1]))
    return out


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _with_scores(sample: Sample) -> str:
    scores = "  ".join(f"{name} {value:.2f}" for name, value in sample.scores.items())
    return f"{_beginning(sample.response)}\n({scores})" if scores else _beginning(sample.response)


def _end(text: str, length: int = 300) -> str:
    """A long conversation is shown by its end: that is what was answered."""
    return text if len(text) <= length else f"… {text[-length:]}"


def _beginning(text: str, length: int = 600) -> str:
    return text if len(text) <= length else f"{text[:length]} …"


def _plain(text: str) -> str:
    """Model text must not act on the terminal: control characters are shown, markup is not interpreted."""
    from rich.markup import escape

    visible = "".join(c if c == "\n" or c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return escape(visible)
