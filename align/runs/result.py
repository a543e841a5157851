"""The result of a run, and reading it back from the run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.runs.tracker import read_records
from align.system.files import read_json


@dataclass(frozen=True)
class TrainResult:
    """The result of a finished run."""

    folder: Path
    steps: int
    metrics: Mapping[str, float]
    """Metrics of the last step."""
    evaluation: Mapping[str, Any] | None
    """The content of ``evaluation.json``; None without an evaluator."""

    @classmethod
    def read(cls, folder: Path, steps: int) -> TrainResult:
        """Read back the result of a finished run of ``steps`` steps."""
        records = read_records(folder / "metrics.jsonl")
        return cls(
            folder=folder,
            steps=steps,
            metrics=next(record for record in reversed(records) if "train/learning_rate" in record),
            evaluation=read_json(folder / "evaluation.json"),
        )
