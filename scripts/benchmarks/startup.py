"""How long a user waits: for ``import align``, ``--help`` and the first optimiser step of DPO on the embedded model.

The unit of each is the import of TRL's DPOTrainer, measured in turns with them: it says how fast machine and disk are.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from align.errors import UserError
from benchmarks.measuring import quartiles, ratios, report, settings_of, spread, versions

_RUN = Path(__file__).resolve().parents[1] / "run.py"
UNIT = "import of TRL's DPOTrainer"


def bench_startup(options: argparse.Namespace) -> None:
    """Measure each in turns and print the result."""
    load_before = os.getloadavg()[0]
    waits: dict[str, Callable[[], None]] = {
        "import align": partial(_command, "-c", "import align"),
        "--help": partial(_command, str(_RUN), "--help"),
        "first step of DPO": _first_step,
        UNIT: partial(_command, "-c", "from trl import DPOTrainer"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in waits}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in waits}
    for number in range(options.rounds + 1):  # the first reads the files into the page cache
        for name, wait in waits.items():
            began, used = time.perf_counter(), _children()
            wait()
            if number:
                seconds[name].append(time.perf_counter() - began)
                cpu_seconds[name].append(_children() - used)
    result = {
        "benchmark": "startup",
        "settings": {**settings_of(options), "versions": versions()},
        "sides": {name: {"seconds": spread(seconds[name]), "cpu_seconds": spread(cpu_seconds[name])} for name in waits},
        "ratios": {
            f"{name}/{UNIT}": {
                "seconds": ratios(seconds[name], seconds[UNIT]),
                "cpu_seconds": ratios(cpu_seconds[name], cpu_seconds[UNIT]),
            }
            for name in waits
            if name != UNIT
        },
        "load_average_before": load_before,
    }
    report(result, options, print_table)


def _command(*words: str) -> None:
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)


def _first_step() -> None:
    """Start the command and stop it once its folder has the metrics of a step."""
    with TemporaryDirectory() as folder:
        words = ["method=dpo", f"output_root={folder}", "run_name=first"]
        process = subprocess.Popen(
            [sys.executable, str(_RUN), *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while not _has_stepped(Path(folder) / "first" / "metrics.jsonl"):
                if process.poll() is not None:
                    raise UserError(f"the command ended with {process.returncode} before its first step.")
                time.sleep(0.02)
        finally:
            process.kill()
            process.wait()


def _has_stepped(metrics: Path) -> bool:
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else []
    return any("grad_norm" in json.dumps(json.loads(line)) for line in lines if line.endswith("}"))


def _children() -> float:
    """CPU time of the children that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def print_table(result: dict[str, Any]) -> None:
    """Print the waits."""
    from rich.console import Console
    from rich.table import Table

    table = Table("", "seconds", "quartiles", "CPU time", f"of the {UNIT}")
    for name, side in result["sides"].items():
        ratio = result["ratios"].get(f"{name}/{UNIT}")
        table.add_row(
            name,
            f"{side['seconds']['median']:.2f}",
            quartiles(side["seconds"], 2),
            f"{side['cpu_seconds']['median']:.2f}",
            f"{ratio['seconds']['median']:.2f}" if ratio else "1",
        )
    Console(width=120).print(table)
