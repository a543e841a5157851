"""Measures a model on prompts: scores, distance from its reference, best-of-n, and against another model."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.cli.console import hide_noise, report
from align.errors import ScorerError, UserError

if TYPE_CHECKING:
    from align.data import Preferences
    from align.evaluation.evaluator import Evaluator
    from align.evaluation.measurement import Measurement
    from align.model.policy import Policy
    from align.scoring.scorer import Scorer

__all__ = ["main"]


def main(words: Sequence[str]) -> int:
    """Run the evaluation that `words` describe; returns the exit code."""
    arguments = _parser().parse_args(words)
    try:
        _evaluate(arguments)
    except UserError as error:
        report(f"Error: {error}")
        return 2
    except ScorerError as error:
        report(f"Error: {error}")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="align evaluate", description="Answer prompts with a model, score the answers, compare with another model."
    )
    parser.add_argument(
        "model", nargs="?", help="folder of a run, or model as in model.name (world/base); not needed with --pairs"
    )
    parser.add_argument("--start", help="PEFT adapter on the model, as in model.start (world/sft)")
    parser.add_argument("--against", metavar="RUN", help="run or model to compare with, for a win rate")
    parser.add_argument("--against-start", metavar="ADAPTER", help="PEFT adapter on that model")
    parser.add_argument("--data", required=True, help="prompts: a file, folder, hub name or world/heldout")
    parser.add_argument(
        "--scorer", action="append", default=[], help="a scorer's name or YAML file; the first decides; repeatable"
    )
    parser.add_argument(
        "--pairs",
        action="store_true",
        help="the data are labelled pairs: the share that each scorer orders rightly",
    )
    parser.add_argument("--best-of", type=int, default=1, metavar="N", help="responses per prompt of a best-of-n curve")
    parser.add_argument("--prompts", type=int, default=300, help="largest number of prompts (default 300)")
    parser.add_argument("--max-new-tokens", type=int, default=128, help="longest response (default 128)")
    parser.add_argument("--max-length", type=int, default=1024, help="longest prompt with response (default 1024)")
    parser.add_argument("--temperature", type=float, default=0.7, help="0 is greedy (default 0.7)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sampling (default 0)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write evaluation.json, samples and pictures there")
    return parser


def _evaluate(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from align.data import Preferences
    from align.runs import report as pictures
    from align.scoring.checked_scores import record_scores
    from align.system.files import write_json

    hide_noise()
    scorers = _scorers(arguments)
    data = Preferences.load(arguments.data)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
    console = Console()
    result: dict[str, Any] = {}
    with record_scores() as log:
        if arguments.model is not None:
            result = _measure(arguments, data, scorers, console)
        if arguments.pairs:
            result["scorer_accuracy"] = {scorer.name: _accuracy(scorer, data) for scorer in scorers}
    result["milliseconds_per_response"] = log.milliseconds()
    models = (str(arguments.against), str(arguments.model))
    pictures.print_evaluation(result, console, title="Held-out prompts", models=models)
    _print_tables(result, console)
    if arguments.out is not None:
        write_json(arguments.out / "evaluation.json", result)


def _scorers(arguments: argparse.Namespace) -> list[Scorer]:
    """Check that the options fit together, and make the scorers."""
    from align.scoring.from_config import read_scorer

    if arguments.model is None and not arguments.pairs:
        raise UserError("there is no model to evaluate; name one, or add --pairs to evaluate scorers alone.")
    for option, asked in (("--best-of", arguments.best_of > 1), ("--pairs", arguments.pairs)):
        if asked and not arguments.scorer:
            raise UserError(f"{option} needs a scorer; add --scorer NAME.")
    scorers = [read_scorer(word) for word in arguments.scorer]
    names = [scorer.name for scorer in scorers]
    for word, name in zip(arguments.scorer, names, strict=True):
        if names.count(name) > 1:
            raise UserError(f"two scorers have the name {name}; write `name: ANOTHER` into {word}.")
    return scorers


def _measure(
    arguments: argparse.Namespace, data: Preferences, scorers: Sequence[Scorer], console: Any
) -> dict[str, Any]:
    """Measure the model, alone or against another one, and its best of n."""
    from align.evaluation.evaluator import Evaluator
    from align.evaluation.measurement import compare
    from align.sampling.params import SamplingParams

    def prepare(model: str, start: str | None) -> tuple[Policy, Evaluator]:
        policy = _load(model, start)
        evaluator = Evaluator.from_preferences(
            policy,
            data,
            data if any(data.dataset["rejected"]) else None,
            max_length=arguments.max_length,
            limit=arguments.prompts,
            scorers=scorers,
            sampling=SamplingParams(temperature=arguments.temperature, max_new_tokens=arguments.max_new_tokens),
            seed=arguments.seed,
        )
        for note in (*policy.notes, *evaluator.notes):
            console.print(note)
        return policy, evaluator

    policy, evaluator = prepare(arguments.model, arguments.start)
    measured = evaluator.measure(policy)
    result: dict[str, Any] = {"metrics": {name: {"model": value} for name, value in measured.metrics().items()}}
    if arguments.against is not None:
        rival, its_evaluator = prepare(arguments.against, arguments.against_start)
        if its_evaluator.texts != evaluator.texts:
            raise UserError(
                "some prompts fit only one of the models; lower --max-new-tokens or leave the longest prompts out."
            )
        compared = compare(its_evaluator.measure(rival), measured, seed=arguments.seed)
        rows = compared["metrics"].items()
        result = compared | {"metrics": {name: {"against": r["before"], "model": r["after"]} for name, r in rows}}
    if arguments.best_of > 1:
        result["best_of_n"] = _best_of_n(arguments, policy, evaluator, scorers)
    if arguments.out is not None:
        _write_samples(arguments.out / "samples.jsonl", measured)
    return result


def _load(model: str, start: str | None) -> Policy:
    """The policy of a run's ``final`` folder, or a model with an adapter."""
    from align.model.policy import Policy

    final = Path(model) / "final"
    return Policy.load_saved(final) if final.is_dir() else Policy.load(model, start=start)


def _accuracy(scorer: Scorer, data: Preferences) -> dict[str, dict[str, float]]:
    """Return the share of pairs whose chosen response scores higher, ties half: over all, and by ``source``."""
    import numpy as np

    from align.evaluation.measurement import win_rate
    from align.scoring.checked_scores import score
    from align.scoring.scorer_inputs import prompt_text

    rows = [row for row in data if row["chosen"] and row["rejected"]]
    scores = score(
        scorer,
        [prompt_text(row["prompt"]) for row in rows],
        [[str(row[side][0]["content"]) for side in ("chosen", "rejected")] for row in rows],  # pyright: ignore[reportOptionalSubscript]
        messages=[row["prompt"] for row in rows],
        answer=[row["answer"] for row in rows],
        source=[row["source"] for row in rows],
    )
    difference = np.array([row[0] - row[1] for row in scores])
    sources = np.array([row["source"] or "" for row in rows])
    groups = {name: win_rate(difference[sources == name]) for name in sorted(set(sources.tolist())) if name}
    return {"all": win_rate(difference), **groups}


def _best_of_n(
    arguments: argparse.Namespace, policy: Policy, evaluator: Evaluator, scorers: Sequence[Scorer]
) -> list[dict[str, Any]]:
    from dataclasses import asdict

    from align.evaluation.best_of_n import best_of_n, plot_best_of_n

    tables = evaluator.score_samples(policy, arguments.best_of)
    chooser, *others = [scorer.name for scorer in scorers]
    curve = best_of_n(tables[chooser], {name: tables[name] for name in others})
    if arguments.out is not None:
        plot_best_of_n(curve, chooser, arguments.out / "best_of_n.png")
    return [asdict(point) for point in curve]


def _print_tables(result: dict[str, Any], console: Any) -> None:
    from rich.table import Table

    if times := result["milliseconds_per_response"]:
        console.print("Milliseconds per response: " + ", ".join(f"{name} {time:.3g}" for name, time in times.items()))
    if "best_of_n" in result:
        table = Table(title="Best of n", title_justify="left")
        others = list(result["best_of_n"][0]["others"])
        for column in ("n", "KL", "score", *others):
            table.add_column(column, justify="right")
        for point in result["best_of_n"]:
            values = (point["kl"], point["score"], *(point["others"][name] for name in others))
            table.add_row(str(point["n"]), *(f"{value:.3f}" for value in values))
        console.print(table)
    for name, groups in result.get("scorer_accuracy", {}).items():
        table = Table(title=f"Pairs ordered as labelled by {name}", title_justify="left")
        for column, justify in (("subset", "left"), ("accuracy", "right"), ("95 % interval", "right"), ("n", "right")):
            table.add_column(column, justify=justify)  # pyright: ignore[reportArgumentType]
        for group, values in groups.items():
            table.add_row(
                group, f"{values['mean']:.1%}", f"{values['low']:.1%} to {values['high']:.1%}", str(values["n"])
            )
        console.print(table)


def _write_samples(file: Path, measured: Measurement) -> None:
    from dataclasses import asdict

    lines = [json.dumps(asdict(sample), ensure_ascii=False) for sample in measured.samples]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
