"""How often each rule of ``align diagnose`` finds its illness, in short runs on the embedded world.

A sick run differs from a healthy one of its method in what brings the illness on: a learning rate, exchanged labels, a
reward, a limit. Healthy runs are those of the method with the settings tuned for the world.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from align.system.workers import core_count
from benchmarks.models import quiet

if TYPE_CHECKING:
    from align.data import Preferences

_PAIRS, _HELDOUT, _PROMPTS = 1200, 400, 64
_TOKENS = 48
"""Of the longest answer."""


@dataclass(frozen=True)
class Scored:
    """A reward that is a number of the answer alone."""

    of: Callable[[str], float]
    name: str = "reward"

    def score(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **columns: Sequence[Any]
    ) -> list[list[float]]:
        """Return scores (P, K)."""
        del prompts, columns
        return [[self.of(text) for text in row] for row in responses]


Row = Mapping[str, Any]


def exchanged(row: Row, rng: random.Random) -> Row:
    """Return the pair with its labels exchanged."""
    del rng
    return {**row, "chosen": row["rejected"], "rejected": row["chosen"]}


def by_chance(row: Row, rng: random.Random) -> Row:
    """Return the pair labelled by a coin."""
    return exchanged(row, rng) if rng.random() < 0.5 else row


def longer_wins(row: Row, rng: random.Random) -> Row:
    """Return the pair with the longer answer as the chosen one."""
    longer = len(row["chosen"].split()) >= len(row["rejected"].split())
    return row if longer else exchanged(row, rng)


def looping(row: Row, rng: random.Random) -> Row:
    """Return the pair with a chosen answer that says its beginning again and again."""
    del rng
    return {**row, "chosen": " ".join([" ".join(row["chosen"].split()[:2])] * 12)}


@dataclass(frozen=True, kw_only=True)
class Run:
    """A short run: the differences from the healthy one of its method."""

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    trainer: Mapping[str, Any] = field(default_factory=dict[str, Any])
    relabel: Callable[[Row, random.Random], Row] | None = None
    pairs: int = _PAIRS
    reward: Callable[[str], float] | None = None
    """None: the true reward."""
    tokens: int = _TOKENS
    """Of the longest held-out answer."""


HEALTHY: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "dpo": ({"beta": 0.5}, {"learning_rate": 8e-4, "batch_size": 32, "steps": 40}),
    "sft": ({}, {"learning_rate": 1e-3, "batch_size": 32, "steps": 40}),
    "grpo": (
        {"responses": 4, "epochs": 2, "beta": 0.2, "max_new_tokens": _TOKENS},
        {"learning_rate": 1e-3, "batch_size": 16, "steps": 24},
    ),
    "ppo": (
        {"responses": 4, "epochs": 2, "beta": 0.2, "max_new_tokens": _TOKENS, "value_coef": 1.0, "lam": 1.0},
        {"learning_rate": 1e-3, "batch_size": 16, "steps": 24},
    ),
    "reward": ({}, {"learning_rate": 1e-3, "batch_size": 32, "steps": 40}),
}
"""Settings of method and trainer; SFT begins from the base model, the others from the fine-tuned one."""

_SHORTEST = Run(
    method="grpo",
    settings={"beta": 0.0},
    reward=lambda text: -float(len(text)),
    trainer={"steps": 60, "learning_rate": 3e-3},
)
"""Rewards the end of turn at once: one run that has several illnesses."""

ILLNESSES: dict[str, Run] = {
    "loss at ln 2": Run(method="dpo", trainer={"learning_rate": 1e-7}),
    "learning rate too low": Run(method="sft", trainer={"learning_rate": 1e-7}),
    "learning rate too high": Run(method="dpo", trainer={"learning_rate": 2e-2}),
    "labels reversed": Run(method="reward", relabel=exchanged, pairs=2400, trainer={"steps": 75}),
    "likelihood displacement": Run(method="dpo", settings={"beta": 0.02}, trainer={"learning_rate": 3e-3, "steps": 60}),
    "overfitting": Run(method="dpo", pairs=64, trainer={"learning_rate": 1e-3, "steps": 80}),
    "worse than the start": Run(method="sft", trainer={"learning_rate": 5e-2}),
    "nothing learned": Run(method="dpo", relabel=by_chance, trainer={"learning_rate": 3e-4}),
    "length": Run(method="dpo", relabel=longer_wins, settings={"beta": 0.1}, trainer={"learning_rate": 2e-3}),
    "loops": Run(method="sft", relabel=looping, trainer={"steps": 100}, tokens=96),
    "no end": Run(method="dpo", tokens=4),
    "cut off": Run(method="dpo", tokens=10),
    "kl": Run(method="grpo", settings={"beta": 0.0}, trainer={"learning_rate": 2e-2}),
    "constant reward": Run(method="grpo", reward=lambda _: 1.0),
    "no gradient": Run(
        method="dpo",
        pairs=32,
        settings={"loss_type": "hinge", "beta": 4.0},
        trainer={"learning_rate": 3e-3, "steps": 60},
    ),
    "identical": _SHORTEST,
    "entropy": _SHORTEST,
    "over-optimised": _SHORTEST,
    "clip fraction": Run(method="grpo", settings={"epochs": 8}, trainer={"learning_rate": 1e-2, "steps": 48}),
    "value": Run(method="ppo", settings={"value_coef": 0.0}),
}


def bench_diagnosis(options: argparse.Namespace) -> None:
    """Make sick and healthy runs, diagnose them, and print how often each illness was found.

    What was found in each run is kept in ``--output``, where the same command goes on.
    """
    seeds = range(options.seed, options.seed + options.runs)
    began = time.perf_counter()
    methods = list(dict.fromkeys(ILLNESSES[name].method for name in options.illnesses))
    runs = list(dict.fromkeys([*methods, *map(_first_name, options.illnesses)]))
    found = _find([(name, seed) for seed in seeds for name in runs], options.output, options.threads)
    healthy = {method: [found[method, seed] for seed in seeds] for method in methods}
    sick = {name: [found[_first_name(name), seed] for seed in seeds] for name in options.illnesses}
    rows = {
        name: {
            "method": ILLNESSES[name].method,
            "sick": sum(name in names for names in sick[name]),
            "healthy": sum(name in names for names in healthy[ILLNESSES[name].method]),
            "also": sorted({other for names in sick[name] for other in names} - {name}),
        }
        for name in options.illnesses
    }
    result = {
        "benchmark": "diagnosis",
        "runs": options.runs,
        "illnesses": rows,
        "healthy_with_findings": {method: [names for names in runs if names] for method, runs in healthy.items()},
        "seconds": time.perf_counter() - began,
    }
    print(json.dumps(result, indent=2) if options.json else _table(result))


def _first_name(illness: str) -> str:
    """The first illness with the same run."""
    return next(name for name, run in ILLNESSES.items() if run is ILLNESSES[illness])


def _find(wanted: Sequence[tuple[str, int]], folder: Path, threads: int) -> dict[tuple[str, int], list[str]]:
    """Return the names of what was found in each run, a name and a seed, after making those that are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "found.jsonl"
    file.touch()
    found = {(name, seed): names for name, seed, names in map(json.loads, file.read_text().splitlines())}
    left = [run for run in wanted if run not in found]
    with (
        ProcessPoolExecutor(max(1, core_count() // threads), get_context("spawn"), quiet, (threads,)) as pool,
        file.open("a") as log,
        tqdm(total=len(left), unit="run", smoothing=0) as bar,
    ):
        runs = {pool.submit(_findings, *run): run for run in left}
        for done in as_completed(runs):
            found[runs[done]] = done.result()
            print(json.dumps([*runs[done], done.result()]), file=log, flush=True)
            bar.update()
    return found


def _table(result: Mapping[str, Any]) -> str:
    runs = result["runs"]
    lines = [f"{'illness':26}{'method':8}{'sick':>8}{'healthy':>9}  also found in the sick"]
    for name, row in result["illnesses"].items():
        sick, healthy = (f"{row[kind]}/{runs}" for kind in ("sick", "healthy"))
        lines.append(f"{name:26}{row['method']:8}{sick:>8}{healthy:>9}  {', '.join(row['also'])}")
    for method, found in result["healthy_with_findings"].items():
        lines.append(f"healthy {method}: {len(found)}/{runs} with a finding {found or ''}")
    return "\n".join([*lines, f"{result['seconds']:.0f} s"])


def _findings(name: str, seed: int) -> list[str]:
    """Train the run of an illness, or a healthy one of a method, and return the names of what is unhealthy."""
    from align.diagnosis.verdict import diagnose

    run = ILLNESSES.get(name) or Run(method=name)
    with tempfile.TemporaryDirectory() as folder:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            _train(run, seed, Path(folder) / "run")
        return [finding.name for finding in diagnose(Path(folder) / "run").findings]


def _train(run: Run, seed: int, folder: Path) -> None:
    from align import Adapter, Evaluator, Policy, Preferences, SamplingParams, Trainer, TrainerConfig
    from align.settings.registry import load
    from align.training.identity import method_settings
    from align.world import TrueReward

    settings, trainer = HEALTHY[run.method]
    method = load("methods", run.method)(**{**settings, **run.settings})
    config = TrainerConfig(**{**trainer, **run.trainer}, seed=seed, save_steps=None, max_length=256, samples=0)
    begin: dict[str, Any] = {"adapter": Adapter(r=16)} if run.method == "sft" else {"start": "world/sft"}
    policy = Policy.load("world/base", **begin, device="cpu", seed=seed)
    rng = random.Random(seed)
    pairs, heldout = (Preferences.load(name) for name in ("world", "world/heldout"))
    train = pairs.select(rng.sample(range(len(pairs)), run.pairs))
    heldout = heldout.select(rng.sample(range(len(heldout)), min(_HELDOUT, len(heldout))))
    if run.relabel is not None:
        train = _relabelled(train, run.relabel, rng)
    true = TrueReward()
    if "policy" in method.trains:
        policy.require(("reference",))
    evaluator = Evaluator.from_preferences(
        policy,
        heldout,
        heldout,
        max_length=256,
        limit=_PROMPTS,
        scorers=[true],
        sampling=SamplingParams(temperature=0.7, max_new_tokens=run.tokens),
        seed=seed,
    )
    described = {"method": method_settings(method), "evaluation": {"max_new_tokens": run.tokens}}
    scorer = (true if run.reward is None else Scored(run.reward)) if method.rollout is not None else None
    Trainer(policy, folder, config, run_config=described).fit(method, train, heldout, evaluator, scorer=scorer)


def _relabelled(data: Preferences, relabel: Callable[[Row, random.Random], Row], rng: random.Random) -> Preferences:
    from align import Preferences

    rows = [{name: row[name][0]["content"] for name in ("prompt", "chosen", "rejected")} for row in data]
    return Preferences.from_rows([dict(relabel(row, rng)) for row in rows])
