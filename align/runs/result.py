"""The result of a run, and reading it back from the run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.runs.tracker import read_records


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
        file = folder / "evaluation.json"
        return cls(
            folder=folder,
            steps=steps,
            metrics=next(record for record in reversed(records) if "learning_rate" in record),
            evaluation=json.loads(file.read_text(encoding="utf-8")) if file.exists() else None,
        )
