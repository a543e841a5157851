"""Trackers beside the run's folder: Weights & Biases, and TensorBoard, trackio and MLflow through accelerate.

Each is a `Service` that is told of metrics, tables and results. What they call the run is kept in ``trackers.json`` in
its folder, so that a resumed run goes on where it was.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from align.errors import UserError
from align.runs.lineage import TRACKER_IDS, Artifact
from align.settings.config import TrackerName, WandbConfig
from align.system.files import read_json, write_json

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

__all__ = ["TITLES", "Service", "Table", "require_installed", "run_ids", "start"]

TITLES: Mapping[TrackerName, str] = {
    "wandb": "W&B",
    "tensorboard": "TensorBoard",
    "trackio": "trackio",
    "mlflow": "MLflow",
}


@dataclass(frozen=True)
class Table:
    """Rows to show at a step."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


class Service(Protocol):
    """What a tracker is told; an error of it ends it alone, not the run."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of a step."""

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


def start(name: TrackerName, folder: Path, wandb: WandbConfig, config: Mapping[str, Any]) -> Service:
    """Begin a run with a tracker, or go on with the one that the folder had.

    Args:
        name: The tracker.
        folder: Of the run.
        wandb: Gives the project and the group to the others too.
        config: Settings to show; without secrets.
    """
    known = run_ids(folder)
    service: Any
    if name == "wandb":
        from align.runs.wandb_run import WandbRun

        service = WandbRun(folder, wandb, config, run_id=known.get(name))
        found = service.id
    else:
        service, found = _accelerated(name, folder, wandb, _flat(config), known.get(name))
    write_json(folder / TRACKER_IDS, {**known, name: found})
    return service


def _accelerated(
    name: TrackerName, folder: Path, settings: WandbConfig, config: Mapping[str, Any], known: str | None
) -> tuple[Service, str]:
    """Start a tracker of accelerate; return it with what it calls the run."""
    from accelerate import PartialState
    from accelerate.tracking import MLflowTracker, TensorBoardTracker, TrackioTracker

    PartialState()  # accelerate's log asks it
    tracker: GeneralTracker
    if name == "tensorboard":
        tracker = TensorBoardTracker(name, folder)
        tracker.start()
        if known is None:
            lines = "\n".join(f"    {key}: {value}" for key, value in config.items())
            tracker.tracker.add_text("config", lines)
        return _TensorBoard(tracker), name
    if name == "trackio":
        called = known or folder.name
        tracker = TrackioTracker(
            settings.project, name=called, group=settings.group, resume="allow" if known else "never", embed=False
        )
        tracker.start()
        tracker.store_init_configuration(dict(config))
        return _Trackio(tracker), tracker.tracker.name
    # A run that is gone on with has its settings already, and MLflow lets none change.
    tracker = MLflowTracker(settings.project, run_id=known, run_name=folder.name)
    tracker.start()
    if known is None:
        tracker.store_init_configuration(dict(config))
    return _MLflow(tracker), tracker.tracker.info.run_id


class _Accelerated:
    """A tracker of accelerate."""

    def __init__(self, tracker: GeneralTracker) -> None:
        self.tracker: Any = tracker

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.tracker.log(dict(metrics), step=step)

    def warn(self, title: str, sentence: str) -> None:
        """It has no alerts; the terminal and ``warnings.jsonl`` have the sentence."""

    def results(self, step: int, values: Mapping[str, float]) -> None:
        self.log(step, values)

    def use(self, artifact: Artifact) -> None:
        """It has no lineage."""

    def keep(self, artifact: Artifact) -> None:
        """The folder of the run has the files."""

    def finish(self, exit_code: int) -> None:
        del exit_code
        self.tracker.finish()


class _TensorBoard(_Accelerated):
    def table(self, step: int, table: Table) -> None:
        lines = [table.columns, ["---"] * len(table.columns), *table.rows]
        text = "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)
        self.tracker.tracker.add_text(table.name, text, step)


class _Trackio(_Accelerated):
    def table(self, step: int, table: Table) -> None:
        import pandas

        trackio = import_module("trackio")
        frame = pandas.DataFrame([list(row) for row in table.rows], columns=list(table.columns))
        self.tracker.log({table.name: trackio.Table(dataframe=frame)}, step=step)


class _MLflow(_Accelerated):
    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """MLflow refuses other characters in a name than these."""
        super().log(step, {re.sub(r"[^\w\-. :/]", "_", name): value for name, value in metrics.items()})

    def table(self, step: int, table: Table) -> None:
        mlflow = import_module("mlflow")
        columns = zip(*table.rows, strict=True)
        data = {name: list(values) for name, values in zip(table.columns, columns, strict=True)}
        mlflow.log_table({"step": [step] * len(table.rows), **data}, artifact_file=f"{table.name}.json")

    def finish(self, exit_code: int) -> None:
        import_module("mlflow").end_run("FINISHED" if exit_code == 0 else "FAILED")


def _cell(value: Any) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ↵ ")


def _flat(config: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested settings by names such as ``trainer.learning_rate``."""
    out: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{before}{name}.")
        else:
            plain = value is None or isinstance(value, (bool, int, float, str))
            out[f"{before}{name}"] = value if plain else str(value)
    return out
