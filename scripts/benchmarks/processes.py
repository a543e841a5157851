"""A step of DPO and of PPO by one process and by several: the same command on the same data, in turns.

Each process of either has the same number of threads, so that several have several times the cores of one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from align.data import Preferences
from align.errors import UserError
from align.runs.tracker import read_records
from benchmarks.measuring import quartiles, ratios, report, settings_of, spread, versions
from benchmarks.models import quiet, save_random_llama, train_tokenizer

_RUN = Path(__file__).resolve().parents[1] / "run.py"
_METHODS = {"dpo": (), "ppo": ("reward=soft_overlong", "method.min_new_tokens=48", "method.epochs=1")}
"""Settings of each, beside those of all. The reward costs nothing."""


def bench_processes(options: argparse.Namespace) -> None:
    """Measure both methods by one process and by several and print the result."""
    quiet(options.threads)
    load_before = os.getloadavg()[0]
    seconds: dict[str, dict[int, list[float]]] = {name: {1: [], options.processes: []} for name in _METHODS}
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tokenizer = train_tokenizer(Preferences.load(options.data), options.vocabulary)
        save_random_llama(folder / "model", tokenizer, options, positions=options.max_length)
        for turn in range(options.rounds):
            for name, found in seconds.items():
                for processes, measured in found.items():
                    measured.extend(_steps(folder, f"{name}-{processes}-{turn}", name, processes, options))
    result = {
        "benchmark": "processes",
        "settings": {**settings_of(options), "versions": versions()},
        "sides": {
            f"{name}, {processes} processes": {"seconds": spread(measured)}
            for name, found in seconds.items()
            for processes, measured in found.items()
        },
        "ratios": {
            f"{name}, 1/{options.processes} processes": {"seconds": ratios(found[1], found[options.processes])}
            for name, found in seconds.items()
        },
        "load_average_before": load_before,
    }
    report(result, options, print_table)


def _steps(folder: Path, run: str, method: str, processes: int, options: argparse.Namespace) -> list[float]:
    """Seconds of the steps of a run, roll-outs included and those of the warm-up left out."""
    words = [
        f"method={method}",
        f"model={folder / 'model'}",
        f"data={options.data}",
        f"data.max_prompts={(options.warmup + options.steps) * options.pairs}",
        "data.heldout_size=0",
        f"trainer.steps={options.warmup + options.steps}",
        f"trainer.batch_size={options.pairs}",
        f"trainer.max_length={options.max_length}",
        "trainer.save_steps=null",
        "trackers=[]",
        "evaluation.prompts=0",
        f"output_root={folder}",
        f"run_name={run}",
        *_METHODS[method],
    ]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [sys.executable, *launcher, str(_RUN), *words],
        env={**os.environ, "OMP_NUM_THREADS": str(max(options.threads // options.processes, 1))},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise UserError(f"{method} by {processes} processes ended with {done.returncode}: {done.stderr[-2000:]}")
    records = read_records(folder / run / "metrics.jsonl")
    return [record["train/seconds"] for record in records if "train/seconds" in record][options.warmup :]


def print_table(result: Mapping[str, Any]) -> None:
    """Print seconds of each side, and how many times faster several processes are."""
    from rich.console import Console
    from rich.table import Table

    table = Table("", "seconds a step", "quartiles")
    for name, side in result["sides"].items():
        table.add_row(name, f"{side['seconds']['median']:.2f}", quartiles(side["seconds"], 2))
    console = Console(width=120)
    console.print(table)
    for name, ratio in result["ratios"].items():
        console.print(f"{name}: {ratio['seconds']['median']:.2f} (quartiles {quartiles(ratio['seconds'], 2)}).")
    console.print(f"Load of the machine before: {result['load_average_before']:.1f}.")
