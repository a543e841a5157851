"""Reads what the runs of a comparison left, and writes its table, ``comparison.json``, picture and page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from align.candidates.drawing import read_summary
from align.cli.compare.contest import Contest
from align.cli.compare.stages import JUDGE, START, Stages, name_of
from align.cli.launch.recipe import CANDIDATES
from align.comparison.answer import answer
from align.comparison.page import draw_reward_against_kl, page, table_of
from align.comparison.results import Cost, Measured, Results, results
from align.errors import UserError
from align.runs.tracker import read_records
from align.system.charts import chart
from align.system.files import read_json, write_json, write_text

__all__ = ["conclude"]

_SHOWN_PROMPTS = 6


def conclude(stages: Stages) -> None:
    """Write the outcome into the folder and print it.

    Raises:
        UserError: Nothing was measured.
    """
    contest = stages.contest
    measured, judged = _measured(stages)
    asked = {seed: one.prompts for seed, one in measured.get(START.label, {}).items()}
    complete = [
        label
        for label, of in measured.items()
        if len(of) == len(contest.comparison.seeds) and {seed: one.prompts for seed, one in of.items()} == asked
    ]
    missing = [c.label for c in contest.comparison.contenders if c.label not in complete]
    if START.label not in complete or len(complete) < 2:
        raise UserError(f"nothing to compare: no method was trained and measured; see {contest.folder / 'jobs'}.")
    costs = {
        contender.label: [_cost(stages, stages.needs(contender, seed)) for seed in contest.comparison.seeds]
        for contender in contest.comparison.trained
        if contender.label in complete
    }
    found = results(
        {label: measured[label] for label in complete},
        costs,
        start=START.label,
        max_new_tokens=judged["max_new_tokens"],
    )
    sentences = answer(found, start=START.label)
    if missing:
        sentences.append(
            f"Not compared, for a run failed or not all prompts fit with its examples: {', '.join(missing)} (see "
            f"{contest.folder / 'jobs'})."
        )
    sentences += _caveats(contest, found)
    facts = _facts(stages, found, judged)
    title = f"{', '.join(row.label for row in found.rows if row.label != START.label)} on {Path(contest.source).name}"
    write_json(contest.folder / "comparison.json", {"answer": sentences, "facts": facts, **found.plain()})
    with chart(contest.folder / "comparison.png", (8, 5)) as (axis,):
        draw_reward_against_kl(axis, found, START.label)
    write_text(
        contest.folder / "comparison.html",
        page(
            found,
            title=title,
            sentences=sentences,
            facts=facts,
            answers=_side_by_side(found, measured),
            start=START.label,
        ),
    )
    _print(found, sentences, contest.folder)


def _measured(stages: Stages) -> tuple[dict[str, dict[int, Measured]], dict[str, Any]]:
    found: dict[str, dict[int, Measured]] = {}
    last: dict[str, Any] = {}
    names = ("scores", "lengths", "kl", "preferred", "chosen_loss", "distinct_2", "prompts", "responses")
    for contender in (START, *stages.contest.comparison.contenders):
        for seed in stages.contest.comparison.seeds:
            content = stages.measured(name_of(contender, seed))
            if content is not None:
                found.setdefault(contender.label, {})[seed] = Measured(**{name: content[name] for name in names})
                last = content
    return found, last


def _cost(stages: Stages, jobs: Sequence[str]) -> Cost:
    records = [record for name in jobs if (record := stages.pool.record(name)) is not None]
    folders = [stages.contest.folder / "runs" / name for name in jobs]
    steps = [record for folder in folders for file in folder.rglob("metrics.jsonl") for record in read_records(file)]
    candidates = [read_summary(file) or {} for folder in folders for file in folder.rglob(CANDIDATES)]
    return Cost(
        seconds=sum(record["seconds"] for record in records),
        peak_bytes=max(record["peak_bytes"] for record in records),
        tokens_trained=sum(step.get("tokens", 0.0) for step in steps),
        tokens_drawn=sum(step.get("tokens/drawn", 0.0) for step in steps)
        + sum(counts.get("tokens", 0.0) for counts in candidates),
    )


def _caveats(contest: Contest, found: Results) -> list[str]:
    """Say what a referee would ask about."""
    out: list[str] = []
    if len(found.seeds) == 1:
        out.append(
            "One training run of each method: the intervals are those of these trained models; another seed may order "
            "them otherwise (seeds=3)."
        )
    if contest.judge is None:
        accuracy = _judge_accuracy(contest)
        out.append(
            f"The judge is a reward model trained on {contest.rows[JUDGE]:,} rows that no method saw; it orders "
            f"{accuracy} of the held-out pairs as labelled. What it cannot see is not in these scores."
        )
    if anew := [row.label for row in found.rows if row.label in contest.from_base]:
        out.append(
            f"{', '.join(anew)}: trained anew from the pretrained model, on answers that the start model drew; KL "
            "is from the start model all the same."
        )
    reward = next((word for word in contest.comparison.shared if word.startswith("reward=")), None)
    if reward is not None:
        out.append(
            f"Methods that draw answers were trained on {reward}; if that is the judge too, their scores say how well "
            "they please it, not how good they are."
        )
    return out


def _judge_accuracy(contest: Contest) -> str:
    report = read_json(contest.folder / "runs" / JUDGE / "evaluation.json") or {}
    found = report.get("intervals", {}).get("accuracy", {}).get("after")
    if found is None:
        return "an unknown share"
    return f"{found['mean']:.1%} (95 % interval {found['low']:.1%} to {found['high']:.1%}, {found['n']:,} pairs)"


def _facts(stages: Stages, found: Results, judged: Mapping[str, Any]) -> dict[str, str]:
    contest, comparison = stages.contest, stages.contest.comparison
    evaluation = comparison.config.evaluation
    rows = ", ".join(f"{part} {count:,}" for part, count in contest.rows.items())
    start = judged["start"]
    judge = "a reward model trained on the split “judge”" if contest.judge is None else judged["judge"]
    return {
        "Data": f"{contest.source}: rows of {rows}; no prompt is in two splits",
        "Start": start["name"] + (f" with {start['start']}" if start["start"] else "") + ", the same for all methods",
        "Runs": f"{len(found.seeds)} of each method, seeds {', '.join(map(str, found.seeds))}",
        "Budget": f"{comparison.budget} for each run" if comparison.budget else "each method's own length",
        "Settings": (
            f"the best of {comparison.settings.tune} for each method on {contest.rows['tuning']:,} other rows: "
            + "; ".join(f"{label}: {words}" for label, words in stages.tuned.items())
            if stages.tuned
            else "each method's own, not tuned on these data"
        ),
        "Judge": judge,
        "Answers": (
            f"one to each of {found.prompts:,} held-out prompts per run, at most {evaluation.max_new_tokens} tokens, "
            f"temperature {evaluation.temperature:g}; all methods of a seed draw with the same random numbers"
        ),
        "Score": "mean over prompts and runs; intervals and tests treat both as random (Welch's t with Satterthwaite's "
        "degrees of freedom)",
        "Best": "told from each other method at the two-sided level .05 (Gutmann and Maymin 1987): a wrong winner in "
        "at most 5 % of comparisons",
        "Tax": "held-out loss on chosen answers, minus that of the start model",
        "Time and memory": "of the training processes, a reward model's included; of several at the same time",
        "Command": f"align compare methods=[{','.join(c.label for c in comparison.contenders)}] "
        f"{' '.join(comparison.shared)} seeds={comparison.settings.seeds}",
    }


def _side_by_side(found: Results, measured: Mapping[str, Mapping[int, Measured]]) -> list[tuple[str, list[Any]]]:
    """Return a few prompts, evenly spaced, with every contender's answer and its score."""
    seed = found.seeds[0]
    count = min(_SHOWN_PROMPTS, found.prompts)
    places = [i * found.prompts // count for i in range(count)]
    some = {row.label: measured[row.label][seed] for row in found.rows}
    first = next(iter(some.values()))
    return [(first.prompts[i], [(label, of.responses[i], of.scores[i]) for label, of in some.items()]) for i in places]


def _print(found: Results, sentences: Sequence[str], folder: Path) -> None:
    console = Console()
    table = Table(
        title="Held-out prompts; * not told apart from the best", title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0)
    )
    for column in ("method", "score", "win rate", "equal length", "KL", "tokens", "tax", "time", "GiB"):
        table.add_column(column, justify="left" if column == "method" else "right", no_wrap=column == "score")
    for row, cells in table_of(found):
        mark = " *" if row.label in found.ranking.tied else ""
        table.add_row(Text(f"{row.label}{mark}"), *cells)
    console.print(table)
    for sentence in sentences:
        console.print(sentence, markup=False, highlight=False)
    console.print(f"{folder / 'comparison.html'} · comparison.json · comparison.png", markup=False, highlight=False)
