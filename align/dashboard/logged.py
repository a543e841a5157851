"""Runs as W&B has them: their ids, metrics and tables, the material of a dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from align.candidates.store import read_summary
from align.errors import UserError
from align.runs.run_folder import is_run, read_config
from align.runs.services import run_ids
from align.runs.tracker import Tracker, by_phase, read_records

__all__ = ["Logged", "read_runs"]

_INSIDE = ("[0-9]*-*", "runs/*")
"""Runs in the folder of a recipe, and of a comparison."""


@dataclass(frozen=True)
class Logged:
    """One run as W&B has it."""

    folder: Path
    id: str
    project: str
    entity: str | None
    group: str | None
    names: frozenset[str]
    """Of its metrics and of the numbers in its summary."""
    tables: frozenset[str]


def read_runs(folders: Sequence[Path]) -> list[Logged]:
    """Read what the runs in these folders logged; the folder of a recipe or a comparison stands for its runs.

    Raises:
        UserError: A folder holds no run, W&B does not know it, or the runs are of several projects.
    """
    found = [_read(run) for folder in folders for run in _runs(folder)]
    projects = {(run.entity, run.project) for run in found}
    if len(projects) > 1:
        said = ", ".join(sorted(f"{entity or 'your default entity'}/{project}" for entity, project in projects))
        raise UserError(f"the runs are in several projects of W&B ({said}); name those of one.")
    return found


def _runs(folder: Path) -> list[Path]:
    if is_run(folder):
        return [folder]
    inside = [run for pattern in _INSIDE for run in sorted(folder.glob(pattern)) if is_run(run)]
    if not inside:
        raise UserError(f"{folder} is not the folder of a run, a recipe or a comparison.")
    return inside


def _read(folder: Path) -> Logged:
    run_id = run_ids(folder).get("wandb")
    if run_id is None:
        raise UserError(f"{folder} was not logged to W&B; train with trackers=[wandb].")
    settings = read_config(folder).get("wandb") or {}
    tracker = Tracker(folder, enabled=False)
    names = {name for record in read_records(tracker.metrics) for name in record if "/" in name}
    names |= set(tracker.read_results())
    drawn = read_summary(folder / "candidates.jsonl") or {}
    names |= set(by_phase(candidates=drawn))
    answered = tracker.read_evaluations().values()
    sampled = [found for found in answered if found.samples]
    tables = (*(["samples"] if sampled else []), *(["before_and_after"] if len(sampled) > 1 else []))
    return Logged(
        folder,
        run_id,
        settings.get("project") or "align",
        settings.get("entity"),
        settings.get("group"),
        frozenset(names),
        frozenset(tables),
    )
