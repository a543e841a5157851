"""Measures a model on prompts: scores, distance from its reference, best-of-n, and against another model."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.cli.report import report
from align.errors import UserError

if TYPE_CHECKING:
    from align.data import Preferences
    from align.evaluation import Evaluator, Measurement, Scorer
    from align.policy import Policy

__all__ = ["main"]


def main(words: Sequence[str]) -> int:
    """Evaluate as the words say; returns the exit code."""
    arguments = _parser().parse_args(words)
    try:
        _evaluate(arguments)
    except UserError as error:
        report(f"Error: {error}")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="evaluate.py", description="Answer prompts with a model, score the answers, compare with another model."
    )
    parser.add_argument("model", help="folder of a run, or model as in model.name (world/base)")
    parser.add_argument("--start", help="PEFT adapter on the model, as in model.start (world/sft)")
    parser.add_argument("--against", metavar="RUN", help="run or model to compare with, for a win rate")
    parser.add_argument("--against-start", metavar="ADAPTER", help="PEFT adapter on that model")
    parser.add_argument("--data", required=True, help="prompts: a file, folder, hub name or world/heldout")
    parser.add_argument(
        "--scorer", action="append", default=[], help="a scorer's name or YAML file; the first decides; repeatable"
    )
    parser.add_argument(
        "--pairs", action="store_true", help="the data are labelled pairs: how many the scorers order so"
    )
    parser.add_argument("--best-of", type=int, default=1, metavar="N", help="responses per prompt of a best-of-n curve")
    parser.add_argument("--prompts", type=int, default=300, help="at most so many prompts (default 300)")
    parser.add_argument("--max-new-tokens", type=int, default=128, help="longest response (default 128)")
    parser.add_argument("--max-length", type=int, default=1024, help="longest prompt with response (default 1024)")
    parser.add_argument("--temperature", type=float, default=0.7, help="0 is greedy (default 0.7)")
    parser.add_argument("--seed", type=int, default=0, help="of the sampling (default 0)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write evaluation.json, samples and pictures there")
    return parser


def _evaluate(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from align import report as pictures
    from align.data import Preferences
    from align.evaluation import Evaluator, compare
    from align.runfolder import write_json
    from align.sampling import SamplingParams
    from align.scoring import read_scorer

    scorers = [read_scorer(word) for word in arguments.scorer]
    if arguments.best_of > 1 and not scorers:
        raise UserError("--best-of needs a scorer that chooses; add --scorer NAME.")
    data = Preferences.load(arguments.data)
    policy = _load(arguments.model, arguments.start)
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
    console = Console()
    for note in (*policy.notes, *evaluator.notes):
        console.print(note)
    measured = evaluator.measure(policy)
    result: dict[str, Any] = {"metrics": {k: {"before": None, "after": v} for k, v in measured.metrics().items()}}
    if arguments.against is not None:
        other = evaluator.measure(_load(arguments.against, arguments.against_start))
        result = compare(other, measured, seed=arguments.seed)
    if arguments.pairs:
        result["scorer_accuracy"] = {scorer.name: _accuracy(scorer, data) for scorer in scorers}
    if arguments.best_of > 1:
        result["best_of_n"] = _best_of_n(arguments, policy, evaluator, scorers)
    pictures.print_evaluation(result, console)
    _print_tables(result, console)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_json(arguments.out / "evaluation.json", result)
        _write_samples(arguments.out / "samples.jsonl", measured)


def _load(model: str, start: str | None) -> Policy:
    """The policy of a run's ``final`` folder, on the base its adapter names, or a model with an adapter."""
    from align.policy import Policy

    final = Path(model) / "final"
    if not final.is_dir():
        return Policy.load(model, start=start)
    adapter = final / "adapter_config.json"
    if not adapter.exists():
        return Policy.load(str(final), adapter=None)
    base = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
    return Policy.load(base, start=str(final))


def _accuracy(scorer: Scorer, data: Preferences) -> dict[str, dict[str, float]]:
    """Share of pairs whose chosen response scores higher, ties half, over all and by ``source``."""
    import numpy as np

    from align.evaluation import prompt_text, win_rate

    rows = [row for row in data if row["chosen"] and row["rejected"]]
    scores = scorer.score(
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

    from align.best_of_n import best_of_n, plot_best_of_n

    tables = evaluator.score_samples(policy, arguments.best_of)
    chooser, *others = [scorer.name for scorer in scorers]
    curve = best_of_n(tables[chooser], {name: tables[name] for name in others})
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        plot_best_of_n(curve, chooser, arguments.out / "best_of_n.png")
    return [asdict(point) for point in curve]


def _print_tables(result: dict[str, Any], console: Any) -> None:
    from rich.table import Table

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
