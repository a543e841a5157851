"""The command ``align dashboard``: a W&B workspace and a report on runs, built from code."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from align.cli.console import report, say
from align.cli.parse.trackers import has_wandb_key
from align.dashboard import spec
from align.dashboard.logged import read_runs
from align.errors import UserError
from align.system.files import write_json

if TYPE_CHECKING:
    from align.dashboard.logged import Logged

__all__ = ["main"]


def main(words: Sequence[str]) -> int:
    """Save the dashboard of the runs that `words` name; returns the exit code."""
    arguments = _parser().parse_args(words)
    try:
        spec.require_library()
        _dashboard(read_runs(arguments.runs), arguments.json)
    except UserError as error:
        report(f"Error: {error}")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="align dashboard",
        description="Build a workspace and a report of W&B with the panels of what runs logged: reward against KL, "
        "accuracies and margins, health, lengths, samples before and after. Without a key of W&B their specification "
        "is written as JSON.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run, a recipe or a comparison")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the specification here and send nothing")
    return parser


def _dashboard(runs: Sequence[Logged], file: Path | None) -> None:
    offline = os.environ.get("WANDB_MODE") == "offline" or not has_wandb_key()
    if file is None and offline:
        file = Path("dashboard.json")
        say("W&B cannot be reached as things are: after `wandb login` and `wandb sync` the same command saves there.")
    if file is None:
        _save(runs)
        return
    entity = runs[0].entity or ""
    try:
        makers = {"workspace": spec.workspace, "report": spec.report}
        write_json(file, {name: spec.as_json(make(runs, entity)) for name, make in makers.items()})
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}.") from error
    say(f"Specification of workspace and report: {file}")


def _save(runs: Sequence[Logged]) -> None:
    import wandb

    try:
        entity: str = runs[0].entity or wandb.Api().default_entity or ""
        for made in (spec.workspace(runs, entity), spec.report(runs, entity)):
            say(made.save().url)
    except Exception as error:  # the library hands on whatever its requests raise
        raise UserError(f"W&B did not take the dashboard ({error}); --json FILE writes its specification.") from error
