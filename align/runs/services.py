"""The interface of trackers beside the run's folder: each is a `Service` that is told of metrics, tables and results.

By what they call the run, kept in ``trackers.json`` in its folder, a resumed run goes on where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from align.errors import UserError
from align.runs.lineage import TRACKER_IDS, Artifact
from align.settings.config import TrackerName
from align.system.files import read_json
from align.system.redaction import redact_strings

__all__ = ["TITLES", "Service", "Table", "require_installed", "run_ids"]

TITLES: Mapping[TrackerName, str] = {
    "wandb": "W&B",
    "tensorboard": "TensorBoard",
    "trackio": "trackio",
    "mlflow": "MLflow",
}


@dataclass(frozen=True)
class Table:
    """Rows to show at a step; secrets in them are redacted."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", redact_strings(self.rows))


class Service(Protocol):
    """One tracker; an error of it ends it alone, not the run."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of a step."""

    def resume(self, logged: Sequence[tuple[int, Mapping[str, float] | Table]]) -> None:
        """Take once more what a run that is gone on with has logged, where it may have been lost."""

    def warn(self, title: str, sentence: str) -> None:
        """Take a warning."""

    def table(self, step: int, table: Table) -> None:
        """Take a table."""

    def results(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers that sum the run up."""

    def use(self, artifact: Artifact) -> None:
        """Take what the run begins or learns from."""

    def keep(self, artifact: Artifact) -> None:
        """Take what the run made."""

    def finish(self, exit_code: int) -> None:
        """End the run."""


def require_installed(trackers: Sequence[TrackerName]) -> None:
    """Raise `UserError` for a tracker whose package is missing."""
    for name in trackers:
        if find_spec(name) is None:
            raise UserError(f"trackers={name} needs a package that is not installed: pip install {name}")


def run_ids(folder: Path) -> dict[str, str]:
    """Return what the trackers call the run in a folder, by tracker."""
    return read_json(folder / TRACKER_IDS) or {}
