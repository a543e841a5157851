"""Measures a model on prompts: scores, distance from its reference, best-of-n, and against another model."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.cli.console import hide_noise, report, with_options
from align.cli.trained_run import TrainedRun, load_model, require_models
from align.errors import ScorerError, UserError
from align.runs.run_folder import require_writable

if TYPE_CHECKING:
    from align.data import Preferences
    from align.evaluation.evaluator import Evaluator
    from align.evaluation.measurement import Measurement
    from align.model.policy import Policy
    from align.sampling.params import SamplingParams
    from align.scoring.scorer import Scorer

__all__ = ["main"]


def main(words: Sequence[str]) -> int:
    """Run the evaluation that `words` describe; returns the exit code."""
    arguments = _parser().parse_args(words)
    try:
        _evaluate(arguments)
    except UserError as error:
        report(f"Error: {with_options(str(error))}")
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
    parser.add_argument(
        "--start", help="PEFT adapter on the model, as in model.start (world/sft); the model is its reference"
    )
    parser.add_argument("--against", metavar="RUN", help="run or model to compare with, for a win rate")
    parser.add_argument("--against-start", metavar="ADAPTER", help="PEFT adapter on that model")
    parser.add_argument(
        "--data", help="prompts: a file, folder, hub name or world/heldout (default: those held out in the run)"
    )
    parser.add_argument(
        "--scorer",
        action="append",
        default=[],
        help="a scorer's name, YAML file or run of a reward model; the first decides; repeatable",
    )
    parser.add_argument(
        "--pairs",
        action="store_true",
        help="the data are labelled pairs: the share that each scorer orders rightly",
    )
    parser.add_argument(
        "--shots",
        type=int,
        default=0,
        metavar="N",
        help="in-context learning: N answered examples before each of the model's prompts (not of --against)",
    )
    parser.add_argument("--examples", help="where they are from, as --data (default: what the run was trained on)")
    parser.add_argument("--best-of", type=int, default=1, metavar="N", help="responses per prompt of a best-of-n curve")
    run = "default: the run's, else"
    parser.add_argument("--prompts", type=int, help=f"largest number of prompts ({run} 300)")
    parser.add_argument("--max-new-tokens", type=int, help=f"longest response ({run} 128)")
    parser.add_argument("--max-length", type=int, help=f"longest prompt with response ({run} 1024)")
    parser.add_argument("--temperature", type=float, help=f"0 is greedy ({run} 0.7)")
    parser.add_argument("--top-p", type=float, help=f"nucleus sampling ({run} 1)")
    parser.add_argument("--seed", type=int, help=f"seed of the sampling ({run} 0)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write evaluation.json, samples and pictures there")
    return parser


_DEFAULTS = {"prompts": 300, "max_new_tokens": 128, "max_length": 1024, "temperature": 0.7, "top_p": 1.0, "seed": 0}


def _evaluate(arguments: argparse.Namespace) -> None:
    require_models(arguments.model, arguments.against)
    from align.data import Preferences
    from align.runs import report as pictures
    from align.scoring.checked_scores import record_scores
    from align.system.console import PlainConsole
    from align.system.files import write_json

    hide_noise()
    run = TrainedRun.find(arguments.model) if arguments.model is not None and arguments.start is None else None
    for name, value in {**_DEFAULTS, **(run.defaults if run is not None else {})}.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    scorers = _scorers(arguments)
    _sampling(arguments)  # wrong ones are refused early
    if arguments.out is not None:
        require_writable(arguments.out, "give --out=FOLDER another place")
    console = PlainConsole()
    shots = _shots(arguments, run)
    if arguments.data is not None:
        data = Preferences.load(arguments.data)
    else:
        data, own = _heldout_in(run, arguments)
        scorers = scorers or own
    if run is not None and run.note is not None:
        remedy = f"To measure what was trained, add --pairs and a scorer with {run.scorer} as its model."
        console.print(f"{run.note} {remedy}")
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {}
    with record_scores() as log:
        if arguments.model is not None:
            result = _measure(arguments, data, shots, scorers, console)
        if arguments.pairs:
            result |= _order_pairs(scorers, data)
    result["milliseconds_per_response"] = log.milliseconds()
    models = (str(arguments.against), str(arguments.model))
    pictures.print_evaluation(result, console, title="Held-out prompts", models=models)
    _print_tables(result, console)
    if arguments.out is not None:
        write_json(arguments.out / "evaluation.json", result)


def _heldout_in(run: TrainedRun | None, arguments: argparse.Namespace) -> tuple[Preferences, Sequence[Scorer]]:
    """Return what a run held out, and the scorers that measured it."""
    from align.cli.launch import assemble
    from align.cli.launch.run import assemble as make_run
    from align.cli.launch.run import make_scorers

    if run is None:
        raise UserError("--data is missing: name prompts or pairs to evaluate on (only a run has its own).")
    config = run.config()
    heldout = assemble.read_data(config).heldout
    if heldout is None:
        raise UserError(f"{arguments.model} held nothing out; add --data.")
    return heldout, make_scorers(make_run(config)).evaluation


def _shots(arguments: argparse.Namespace, run: TrainedRun | None) -> Preferences | None:
    """Return the examples of few-shot prompting; None where none is asked for."""
    from align.cli.launch import assemble
    from align.data import Preferences

    if arguments.shots < 0:
        raise UserError(f"--shots={arguments.shots} is the number of examples before a prompt; give 0 or more.")
    if arguments.examples is not None and not arguments.shots:
        raise UserError("--examples has no effect without --shots=N; add it.")
    if not arguments.shots:
        return None
    if arguments.model is None:
        raise UserError("--shots: there is no model to prompt; name one.")
    if arguments.examples is not None:
        return Preferences.load(arguments.examples)
    if run is None:
        raise UserError("--examples is missing: name answered prompts for --shots (only a run has its own).")
    return assemble.load_data(run.config())[0]


def _sampling(arguments: argparse.Namespace) -> SamplingParams:
    from align.sampling.params import SamplingParams

    names = ("temperature", "top_p", "max_new_tokens")
    return SamplingParams(**{name: getattr(arguments, name) for name in names})


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
    arguments: argparse.Namespace,
    data: Preferences,
    shots: Preferences | None,
    scorers: Sequence[Scorer],
    console: Any,
) -> dict[str, Any]:
    """Measure the model, alone or against another one, and its best of n."""
    from align.data.few_shot import with_shots
    from align.evaluation.evaluator import Evaluator
    from align.evaluation.measurement import tabulate, win_rate

    has_pairs = any(data.dataset["rejected"])

    def prepare(model: str, start: str | None, asked: Preferences | None = None) -> tuple[Policy, Evaluator]:
        policy = load_model(model, start)
        evaluator = Evaluator.from_preferences(
            policy,
            data,
            data if has_pairs and asked is None else None,  # pairs are compared without the examples
            asked=asked,
            max_length=arguments.max_length,
            limit=arguments.prompts,
            scorers=scorers,
            sampling=_sampling(arguments),
            seed=arguments.seed,
        )
        for note in (*policy.notes, *evaluator.notes):
            console.print(note)
        return policy, evaluator

    asked = None if shots is None else with_shots(data, shots, arguments.shots, seed=arguments.seed)
    policy, evaluator = prepare(arguments.model, arguments.start, asked)
    measured = evaluator.measure(policy)
    result = tabulate({"model": measured})
    if arguments.against is not None:
        rival, its_evaluator = prepare(arguments.against, arguments.against_start)
        if its_evaluator.texts != evaluator.texts:
            raise UserError(
                "some prompts fit only one of the models; lower --max-new-tokens or leave the longest prompts out."
            )
        its = its_evaluator.measure(rival)
        result = tabulate({"against": its, "model": measured})
        if None not in result["metrics"].get("kl", {"against": None}).values():
            result["notes"] = ["kl is the divergence of each model from the model that it began from."]
        if (won := win_rate(its, measured)) is not None:
            result["win_rate"] = won
    if arguments.best_of > 1:
        result["best_of_n"] = _best_of_n(arguments, policy, evaluator, scorers)
    if arguments.out is not None:
        _write_samples(arguments.out / "samples.jsonl", measured)
    return result


def _order_pairs(scorers: Sequence[Scorer], data: Preferences) -> dict[str, Any]:
    """Share of pairs whose chosen response scores higher, ties half: over all, and by ``source``; and its tests.

    The pairs of a prompt are one group of the shares' intervals; the tests take each for itself.

    ``same_accuracy`` has p-values of the first scorer and each other ordering as many pairs rightly that the other does
    not: McNemar's, exact, corrected for their number (Holm).
    """
    import numpy as np

    from align.evaluation.statistics import holm, ordered_right, rate, sign_test
    from align.scoring.checked_scores import score
    from align.scoring.scorer_inputs import prompt_text

    pairs = [
        (row, asked) for row, asked in zip(data, data.questions(), strict=True) if row["chosen"] and row["rejected"]
    ]
    rows, prompts = [row for row, _ in pairs], np.array([asked for _, asked in pairs])
    sources = np.array([row["source"] or "" for row in rows])
    by_source = {source: sources == source for source in sorted(set(sources.tolist())) if source}
    right: dict[str, Any] = {}
    for scorer in scorers:
        scores = score(
            scorer,
            [prompt_text(row["prompt"]) for row in rows],
            [[str(row[side][0]["content"]) for side in ("chosen", "rejected")] for row in rows],  # pyright: ignore[reportOptionalSubscript]
            messages=[row["prompt"] for row in rows],
            answer=[row["answer"] for row in rows],
            source=[row["source"] for row in rows],
        )
        right[scorer.name] = ordered_right(np.round([row[0] - row[1] for row in scores], 9))
    first, *others = right
    return {
        "scorer_accuracy": {
            name: {
                "all": asdict(rate(found, prompts)),
                **{source: asdict(rate(found[its], prompts[its])) for source, its in by_source.items()},
            }
            for name, found in right.items()
        },
        "same_accuracy": holm({other: sign_test(right[first], right[other]) for other in others}),
    }


def _best_of_n(
    arguments: argparse.Namespace, policy: Policy, evaluator: Evaluator, scorers: Sequence[Scorer]
) -> list[dict[str, Any]]:
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
        for column in ("n", "KL, estimated", "KL, at most", "score", *others):
            table.add_column(column, justify="right")
        for point in result["best_of_n"]:
            values = (point["kl"], point["kl_bound"], point["score"], *(point["others"][name] for name in others))
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
    for name, p in result.get("same_accuracy", {}).items():
        console.print(
            f"{next(iter(result['scorer_accuracy']))} and {name} order equally many pairs rightly: p = {p:.3g} "
            "(exact McNemar test, Holm's correction)."
        )


def _write_samples(file: Path, measured: Measurement) -> None:
    lines = [json.dumps(asdict(sample), ensure_ascii=False) for sample in measured.samples]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
