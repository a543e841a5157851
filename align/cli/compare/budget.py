"""The number of steps that a budget of tokens or minutes allows, from a short run of the same method."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from align.cli.compare.words import Budget
from align.runs.tracker import read_records

__all__ = ["PILOT_STEPS", "last_record", "steps"]

PILOT_STEPS = 12
"""Of the short run; a roll-out may be used for several of them."""


def steps(budget: Budget, run: Path, seconds: float) -> int:
    """Return the optimiser steps that the budget allows, at least one.

    Args:
        budget: Tokens trained, or minutes of the whole process, the drawing of candidates included.
        run: Folder of the short run.
        seconds: Of its process.
    """
    records = [record for file in _last_stage(run) for record in read_records(file) if "train/seconds" in record]
    if budget.unit == "tokens":
        return max(1, round(budget.amount / (sum(r["train/tokens"] for r in records) / len(records))))
    # Roll-outs come every few steps: the mean over all but the first, or the median where there are no more.
    later = [record["train/seconds"] for record in records[1:]] or [median(r["train/seconds"] for r in records)]
    before = seconds - sum(record["train/seconds"] for record in records)
    return max(1, int((60 * budget.amount - before) / (sum(later) / len(later))))


def last_record(run: Path) -> dict[str, Any]:
    """Return what the last stage of a run logged of its last step; nothing where there is none."""
    records = [record for file in _last_stage(run) for record in read_records(file) if "train/tokens" in record]
    return dict(records[-1]) if records else {}


def _last_stage(run: Path) -> list[Path]:
    files = sorted(run.rglob("metrics.jsonl"), key=lambda file: file.stat().st_mtime)
    return files[-1:]
