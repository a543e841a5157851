"""Off-line runs of W&B, read back from its files with its own program."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def records(folder: Path) -> list[dict[str, Any]]:
    """The records in the files of a folder's off-line runs, oldest first."""
    out: list[dict[str, Any]] = []
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        words = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        out += [json.loads(line) for line in done.stdout.splitlines()]
    return out


def history(folder: Path) -> list[dict[str, Any]]:
    """The steps that a folder's off-line runs logged."""
    return [record["history"]["item"] for record in records(folder) if record["type"] == "history"]


def shown(folder: Path) -> set[str]:
    """The names that W&B can draw: those of the history, tables as ``NAME._type``, and those of the summary."""
    found = records(folder)
    steps = [record["history"]["item"] for record in found if record["type"] == "history"]
    sums = [record["summary"]["update"] for record in found if record["type"] == "summary"]
    return {name for names in (*steps, *sums) for name in names}
