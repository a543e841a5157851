"""Reads what the runs of a comparison left, and writes its table, ``comparison.json``, picture and page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from align.cli.compare.caveats import alarms, caveats
from align.cli.compare.costs import cost
from align.cli.compare.facts import facts
from align.cli.compare.stages import START, Stages, name_of
from align.cli.compare.words import Contender
from align.comparison.answer import answer
from align.comparison.frontier import Frontier, Point
from align.comparison.judge import check_judge
from align.comparison.page import COLUMNS, draw_reward_against_kl, page, table_for_programs, table_of
from align.comparison.results import Measured, Results, results
from align.errors import UserError
from align.model.naming import without_places
from align.runs.tracker import log_table
from align.system.charts import chart
from align.system.console import PlainConsole
from align.system.files import read_json, write_json, write_text

__all__ = ["conclude"]

_SHOWN_PROMPTS = 6


def conclude(stages: Stages) -> bool:
    """Write the outcome into the folder and print it; returns whether all that was asked for is compared.

    Raises:
        UserError: Nothing was measured.
    """
    contest = stages.contest
    measured, contents = _measured(stages)
    asked = {seed: one.prompts for seed, one in measured.get(START.label, {}).items()}
    complete = [
        label
        for label, of in measured.items()
        if len(of) == len(contest.comparison.seeds) and {seed: one.prompts for seed, one in of.items()} == asked
    ]
    if START.label not in complete or len(complete) < 2:
        failed = [f"{c.label} {_failure(stages, c)}" for c in (START, *contest.comparison.contenders)]
        raise UserError(f"nothing to compare: {'; '.join(failed)}.")
    judged = contents[START.label][0]
    costs = {
        contender.label: [cost(stages, contender, seed, judged["parameters"]) for seed in contest.comparison.seeds]
        for contender in contest.comparison.trained
        if contender.label in complete
    }
    found = results(
        {label: measured[label] for label in complete},
        costs,
        start=START.label,
        max_new_tokens=judged["max_new_tokens"],
    )
    check = check_judge(judged["pairs"])
    frontiers = _frontiers(stages, asked[found.seeds[0]])
    notes = {label: sorted({note for one in of for note in one["notes"]}) for label, of in contents.items()}
    every = [one for label in complete for one in measured[label].values()]
    left_out = _left_out(found, stages, measured)
    warned = alarms(stages, found, check, _all_scores(every, judged["pairs"]))
    sentences = [*warned, *(["By these scores:"] if warned else []), *answer(found, start=START.label), *left_out]
    equally_long = len({length for one in every for length in one.lengths}) == 1
    how = facts(stages, found, judged, check, equally_long=equally_long)
    looks = sorted({*(read_json(contest.folder / "comparison.json") or {}).get("looks", []), len(found.seeds)})
    outcome: dict[str, Any] = {
        "answer": without_places(sentences),
        "caveats": without_places(caveats(stages, found, check, notes, frontiers, looks)),
        "facts": without_places(how),
    }
    more = {
        "notes": {label: said for label, said in notes.items() if said},
        "judge": None if check is None else asdict(check),
        "frontier": {label: line.plain() for label, line in frontiers.items()},
        "looks": looks,
    }
    write_json(contest.folder / "comparison.json", {**outcome, **more, **found.plain()})
    _write_page(stages, found, _side_by_side(found, measured), frontiers, outcome)
    if "wandb" in contest.comparison.config.trackers:
        log_table(contest.folder, contest.wandb, "comparison", *table_for_programs(found))
    whole = [f"{label} is {whole}" for label, whole in contest.comparison.cut_labels.items()]
    _print(found, [*whole, *outcome["answer"], *outcome["caveats"]], contest.folder)
    return not left_out


def _write_page(
    stages: Stages,
    found: Results,
    answers: list[tuple[str, list[Any]]],
    frontiers: Mapping[str, Frontier],
    outcome: Mapping[str, Any],
) -> None:
    """Write the picture, and the page with it."""
    folder = stages.contest.folder
    with chart(folder / "comparison.png", (8, 5)) as (axis,):
        draw_reward_against_kl(axis, found, START.label, frontiers)
    compared = ", ".join(row.label for row in found.rows if row.label != START.label)
    title = f"{compared} on {Path(stages.contest.source).name}"
    text = page(found, title=title, answers=answers, start=START.label, frontiers=frontiers, **outcome)
    write_text(folder / "comparison.html", text)


def _all_scores(every: Sequence[Measured], pairs: Sequence[Mapping[str, Any]] | None) -> list[float]:
    return [score for one in every for score in one.scores] + [s for pair in pairs or () for s in pair["scores"]]


def _left_out(found: Results, stages: Stages, measured: Mapping[str, Mapping[int, Measured]]) -> list[str]:
    """Name the contenders that are not compared, and why."""
    comparison = stages.contest.comparison
    left_out = [c for c in comparison.contenders if c.label not in {row.label for row in found.rows}]
    whole = {label for label, of in measured.items() if len(of) == len(comparison.seeds)}
    sentences = [f"Not compared: {c.label} {_failure(stages, c)}." for c in left_out if c.label not in whole]
    if other := [c.label for c in left_out if c.label in whole]:
        sentences.append(
            "Not compared, for not all prompts of the others fit into the model with what it puts before them: "
            f"{', '.join(other)}."
        )
    return sentences


def _failure(stages: Stages, contender: Contender) -> str:
    """Say in which seed a contender failed first, and why."""
    for seed in stages.contest.comparison.seeds:
        if reason := stages.reason(contender, seed):
            return f"failed with seed {seed}: {' '.join(reason.split()).rstrip('.')}"
    return f"was not measured, see {stages.pool.folder}"


def _measured(stages: Stages) -> tuple[dict[str, dict[int, Measured]], dict[str, list[dict[str, Any]]]]:
    """Return what was measured of each contender by seed, and all that its files say."""
    found: dict[str, dict[int, Measured]] = {}
    contents: dict[str, list[dict[str, Any]]] = {}
    for contender in (START, *stages.contest.comparison.contenders):
        for seed in stages.contest.comparison.seeds:
            content = stages.measured(name_of(contender, seed))
            if content is not None:
                made = Measured(**{field.name: content[field.name] for field in fields(Measured)})
                found.setdefault(contender.label, {})[seed] = made
                contents.setdefault(contender.label, []).append(content)
    return found, contents


def _frontiers(stages: Stages, asked: Sequence[str]) -> dict[str, Frontier]:
    """Return the line of each contender with two points or more that answered the same prompts."""
    out: dict[str, Frontier] = {}
    for label, (setting, names) in stages.swept.items():
        contents = {strength: stages.measured(name) for strength, name in names.items()}
        points = [
            Point(strength, content["kl"], content["scores"])
            for strength, content in contents.items()
            if content is not None and content["prompts"] == list(asked) and None not in content["kl"]
        ]
        if len(points) > 1:
            out[label] = Frontier(setting, points)
    return out


def _side_by_side(found: Results, measured: Mapping[str, Mapping[int, Measured]]) -> list[tuple[str, list[Any]]]:
    """Return a few prompts, evenly spaced, with every contender's answer and its score."""
    seed = found.seeds[0]
    count = min(_SHOWN_PROMPTS, found.prompts)
    places = [i * found.prompts // count for i in range(count)]
    some = {row.label: measured[row.label][seed] for row in found.rows}
    first = next(iter(some.values()))
    return [(first.prompts[i], [(label, of.responses[i], of.scores[i]) for label, of in some.items()]) for i in places]


def _print(found: Results, sentences: Sequence[str], folder: Path) -> None:
    console = PlainConsole()
    title = "Held-out prompts; * not told apart from the best"
    if any(row.score.low is None for row in found.rows):
        title += f"; no ± with {len(found.seeds)} seeds"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, collapse_padding=True, pad_edge=False)
    for column in COLUMNS:
        if column == "method":
            table.add_column(column, overflow="fold")
        else:
            table.add_column(column, justify="right", no_wrap=column in ("score", "FLOPs"))
    for row, cells in table_of(found):
        mark = " *" if row.label in found.ranking.tied else ""
        table.add_row(f"{row.label}{mark}", *cells)
    console.print(table)
    for sentence in sentences:
        console.print(sentence)
    console.print(f"{folder / 'comparison.html'} · comparison.json · comparison.png")
