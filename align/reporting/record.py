"""All that a run left in its folder, as its report shows it: one that is passed on says nothing of this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.model.naming import without_places
from align.reporting.cost import COST
from align.reporting.data_summary import DATA
from align.runs.run_folder import read_config
from align.runs.tracker import Tracker, read_records
from align.system.files import read_json

if TYPE_CHECKING:
    from align.evaluation.measurement import Sample

__all__ = ["Record"]


@dataclass(frozen=True)
class Record:
    """A run, finished or not; what it did not leave is empty or None."""

    folder: Path
    settings: Mapping[str, Any]
    """The content of ``config.yaml``."""
    metrics: Sequence[Mapping[str, Any]]
    evaluation: Mapping[str, Any]
    before: Sequence[Sample]
    """Answers of the start model."""
    after: Sequence[Sample]
    """Answers of the last evaluation, if that is another."""
    warnings: Sequence[Mapping[str, Any]]
    data: Mapping[str, Any] | None
    environment: Mapping[str, Any]
    command: str
    cost: Mapping[str, Any]
    is_finished: bool
    """It left a trained model."""

    @classmethod
    def read(cls, folder: Path) -> Record:
        """Read the folder of a run.

        Raises:
            UserError: It is none.
        """
        settings = read_config(folder)
        tracker, command = Tracker(folder, enabled=False), folder / "command.txt"
        evaluations = list(tracker.read_evaluations().items())
        return cls(
            folder=folder,
            settings=settings,
            metrics=read_records(tracker.metrics),
            evaluation=read_json(folder / "evaluation.json", dict) or {},
            before=evaluations[0][1].samples if evaluations and evaluations[0][0] == 0 else (),
            after=evaluations[-1][1].samples if evaluations and evaluations[-1][0] else (),
            warnings=without_places(read_records(tracker.warnings)),
            data=_portable(read_json(folder / DATA, dict)),
            environment=read_json(folder / "environment.json", dict) or {},
            command=_command(command.read_text(encoding="utf-8").strip()) if command.exists() else "",
            cost=read_json(folder / COST, dict) or {},
            is_finished=(folder / "final").exists(),
        )

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.folder.resolve().name

    @cached_property
    def flat_settings(self) -> dict[str, str]:
        """Every setting by its whole name, as ``trainer.epochs``."""
        return {name: without_places(value) for name, value in _flat(self.settings)}


def _command(text: str) -> str:
    return without_places(re.sub(r"\S*/align/__main__\.py\b", "-m align", text))


def _portable(data: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Leave the texts of the examples as they are."""
    return None if data is None else {**data, "parts": without_places(data["parts"])}


def _flat(value: Any, place: str = "") -> list[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        return [pair for name, item in value.items() for pair in _flat(item, f"{place}.{name}" if place else str(name))]
    return [(place, "null" if value is None else str(value))]
