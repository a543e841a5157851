"""TensorBoard, trackio and MLflow, through the trackers of accelerate."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.runs.lineage import Artifact
from align.runs.services import Service, Table
from align.settings.config import TrackerName, WandbConfig

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

__all__ = ["begin"]


def begin(
    name: TrackerName, folder: Path, settings: WandbConfig, config: Mapping[str, Any], known: str | None
) -> tuple[Service, str]:
    """Start a tracker; return it with what it calls the run.

    Args:
        name: The tracker.
        folder: Of the run.
        settings: Gives project and group.
        config: Settings to show; without secrets.
        known: By which the run to go on with is called; None: a new one.
    """
    flat = _flat(config)
    from accelerate import PartialState
    from accelerate.tracking import MLflowTracker, TensorBoardTracker, TrackioTracker

    PartialState()  # accelerate's log asks it
    tracker: GeneralTracker
    if name == "tensorboard":
        tracker = TensorBoardTracker(name, folder)
        tracker.start()
        if known is None:
            lines = "\n".join(f"    {key}: {value}" for key, value in flat.items())
            tracker.tracker.add_text("config", lines)
        return _TensorBoard(tracker), name
    if name == "trackio":
        called = known or folder.name
        tracker = TrackioTracker(
            settings.project, name=called, group=settings.group, resume="allow" if known else "never", embed=False
        )
        tracker.start()
        tracker.store_init_configuration(flat)
        return _Trackio(tracker), tracker.tracker.name
    # A run that is gone on with has its settings already, and MLflow lets none change.
    tracker = MLflowTracker(settings.project, run_id=known, run_name=folder.name)
    tracker.start()
    if known is None:
        tracker.store_init_configuration(flat)
    return _MLflow(tracker), tracker.tracker.info.run_id


class _Accelerated:
    """A tracker of accelerate."""

    def __init__(self, tracker: GeneralTracker) -> None:
        self.tracker: Any = tracker

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.tracker.log(dict(metrics), step=step)

    def resume(self, logged: Sequence[tuple[int, Mapping[str, float] | Table]]) -> None:
        """It writes as it goes."""

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
