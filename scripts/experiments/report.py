"""The outcome of an experiment: ``NAME.json``, a table, a chart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from align.evaluation import statistics
from align.system.charts import chart
from align.system.files import write_json
from experiments.fits import Fit, Form, fit
from experiments.plan import Experiment
from experiments.running import Runner
from experiments.verdicts import judge, of_all, values

__all__ = ["conclude", "needed", "shown"]

_MOST = 1000
"""Runs beyond which nobody would go."""


def conclude(name: str, experiment: Experiment, runner: Runner, measured: Mapping[str, Any], folder: Path) -> str:
    """Judge the claim, write its files into the folder and print the table; returns the verdict."""
    arms = experiment.all_arms
    verdicts = [judge(part, measured, arms) for part in experiment.all_parts]
    outcome = of_all(verdicts)
    rows: dict[str, Any] = {}
    for arm, of_arm in measured.items():
        seeds = runner.seeds(arms[arm])
        rows[arm] = {
            "seeds": seeds,
            "x": arms[arm].x,
            "line": arms[arm].line,
            "seconds": float(np.median([runner.seconds(arm, seed) for seed in seeds])) if arms[arm].words else 0.0,
            "measured": {
                f"{measure}.{quantity}": asdict(statistics.mean(values(of_arm, f"{measure}.{quantity}")))
                | {"by_seed": values(of_arm, f"{measure}.{quantity}").mean(1).tolist()}
                for measure, found in next(iter(of_arm.values())).items()
                for quantity in ("score", "proxy", "kl", "length", "loss")
                if quantity in found and None not in found[quantity]
            },
        }
        paths = [found for seed in seeds if (found := runner.paths(arm, seed)) is not None]
        if paths:
            rows[arm]["measured"]["paths"] = {
                "mean": float(np.mean(paths)),
                "low": None,
                "high": None,
                "by_seed": paths,
            }
    content = {
        "title": experiment.title,
        "claims": experiment.claims,
        "published": experiment.published,
        "source": experiment.source,
        "prediction": experiment.prediction,
        "remarks": experiment.remarks,
        "verdict": outcome,
        "parts": [asdict(verdict) for verdict in verdicts],
        "arms": rows,
        "fits": {line: asdict(_fit(form, line, rows)) for line, form in experiment.fits.items()},
        "chart": dict(experiment.chart),
        "shown": _shown_of(experiment),
        "seconds": sum(row["seconds"] * len(row["seeds"]) for row in rows.values()),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{name}.json", content)
    draw(content, folder / f"{name}.png")
    _print(content)
    return outcome


def _shown_of(experiment: Experiment) -> list[str]:
    """Return the quantities for the table: the scores, and what is judged or drawn."""
    judged = [part.of if "." in part.of else f"{part.of}.score" for part in experiment.all_parts]
    scores = [f"{measure}.score" for measure in experiment.measures]
    drawn = [experiment.chart[key] for key in ("of", "across") if key in experiment.chart]
    distances = [f"{part.of}.kl" for part in experiment.all_parts if part.statistic == "frontier"]
    return list(dict.fromkeys([*scores, *judged, *distances, *drawn]))


def _fit(form: Form, line: str, rows: Mapping[str, Any]) -> Fit:
    """Fit the score over the KL of a line's arms."""
    members = [row["measured"] for row in rows.values() if row["line"] == line]
    start = rows["start"]["measured"]["seen.score"]["mean"]
    gains = [found["seen.score"]["mean"] - start for found in members]
    return fit(form, [found["seen.kl"]["mean"] for found in members], gains)


def draw(content: Mapping[str, Any], picture: Path) -> None:
    """Draw the first measure of each arm: along ``x`` with a line for each group, or one below the other."""
    words, rows = content["chart"], content["arms"]
    y = words.get("of") or next(iter(next(iter(rows.values()))["measured"]))
    lines: dict[str, list[tuple[float, Mapping[str, Any], str]]] = {}
    for arm, row in rows.items():
        if y not in row["measured"]:
            continue
        x = row["measured"].get(words["across"], {"mean": row["x"]})["mean"] if "across" in words else row["x"]
        if x is not None:
            lines.setdefault(row["line"] or arm, []).append((x, row["measured"][y], arm))
    with chart(picture, (8, 4.5)) as (axis,):
        if not lines:
            named = {arm: row["measured"][y] for arm, row in rows.items() if y in row["measured"]}
            for place, found in enumerate(reversed(named.values())):
                axis.errorbar(found["mean"], place, xerr=_error(found), marker="o", capsize=3, color="C0")
            axis.set_yticks(range(len(named)), list(reversed(named)))
            axis.set_xlabel(words.get("y", y))
        for line, points in lines.items():
            points.sort(key=lambda point: point[0])
            axis.errorbar(
                [x for x, _, _ in points],
                [found["mean"] for _, found, _ in points],
                yerr=np.concatenate([_error(found) for _, found, _ in points], axis=1),
                marker="o",
                capsize=3,
                linestyle="-" if len(points) > 1 else "none",
                label=line,
            )
        if lines:
            axis.set(xlabel=words.get("x", words.get("across", "")), ylabel=words.get("y", y))
            if words.get("log"):
                places = [x for points in lines.values() for x, _, _ in points]
                least = min(x for x in places if x > 0)
                if min(places) > 0:
                    axis.set_xscale("log")
                else:  # zero has a place too
                    axis.set_xscale("symlog", linthresh=least)
            axis.figure.legend(loc="outside right upper")
        axis.set_title(content["title"])


def _error(found: Mapping[str, Any]) -> Any:
    low, high = (found[end] if found[end] is not None else found["mean"] for end in ("low", "high"))
    return [[found["mean"] - low], [high - found["mean"]]]


def _print(content: Mapping[str, Any]) -> None:
    console = Console()
    table = Table(title=content["title"], title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for column in ("arm", "runs", *content["shown"], "seconds"):
        table.add_column(column, justify="left" if column == "arm" else "right", no_wrap=column == "arm")
    for arm, row in content["arms"].items():
        cells = [shown(row["measured"].get(name)) for name in content["shown"]]
        table.add_row(arm, str(len(row["seeds"])), *cells, f"{row['seconds']:.0f}")
    console.print(table)
    for part in content["parts"]:
        console.print(
            f"{part['outcome']}: {part['says']}: {shown(part)} ({part['rule']}; {part['runs']} runs, "
            f"{part['prompts']} prompts){needed(part)}",
            markup=False,
            highlight=False,
        )
    console.print(f"Verdict: {content['verdict']}", markup=False, highlight=False)


def needed(part: Mapping[str, Any]) -> str:
    """Say how many runs could tell what cannot be told yet."""
    if part["needs"] is None:
        return ""
    enough = part["needs"] <= _MOST
    return f"; about {part['needs']:,} runs could tell" if enough else f"; not even {_MOST:,} runs could tell"


def shown(found: Mapping[str, Any] | None) -> str:
    """Return a mean, or the value of a part, with its interval."""
    if found is None:
        return ""
    mean = found.get("mean", found.get("value"))
    return f"{mean:.3f}" if found["low"] is None else f"{mean:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
