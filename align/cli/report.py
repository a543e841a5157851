"""The command ``align report``: the report of a run written again, or of several runs side by side."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from align.cli.console import report, say
from align.errors import UserError

__all__ = ["main"]

_LONGEST_NAME = 120


def main(words: Sequence[str]) -> int:
    """Write the page; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="align report", description="Write the report of a run again, or one page of several runs side by side."
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run, finished or not")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the page (default: in the run's folder, or beside it)"
    )
    arguments = parser.parse_args(words)
    try:
        say(f"Report: {_write(arguments.runs, arguments.out)}")
    except UserError as error:
        report(f"Error: {error}")
        return 2
    return 0


def _write(runs: Sequence[Path], out: Path | None) -> Path:
    from align.reporting.page import REPORT
    from align.reporting.page import report as page_of
    from align.reporting.record import Record
    from align.system.files import write_text

    records = [Record.read(folder) for folder in runs]
    names = [record.name for record in records]
    if len(set(names)) < len(names):
        raise UserError(f"two of these runs are named {max(names, key=names.count)}; give runs with names that differ.")
    beside = runs[0].resolve().parent / f"report-{'-'.join(names)[:_LONGEST_NAME]}.html"
    page = out or (runs[0] / REPORT if len(records) == 1 else beside)
    try:
        write_text(page, page_of(records))
    except OSError as error:
        raise UserError(f"{page} cannot be written ({error.strerror}); give --out=FILE.") from error
    return page
