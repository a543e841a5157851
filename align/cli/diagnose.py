"""The command ``align diagnose``: the verdict on finished and running runs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from align.cli.console import report, say
from align.errors import UserError

__all__ = ["main"]


def main(words: Sequence[str]) -> int:
    """Print the verdict on each run; returns 0 if all are healthy, 1 if something is not, 2 for a mistake."""
    arguments = _parser().parse_args(words)
    from align.diagnosis.verdict import diagnose
    from align.system.terminal import visible

    try:
        verdicts = [diagnose(folder) for folder in arguments.runs]
    except UserError as error:
        report(f"Error: {visible(str(error))}")
        return 2
    if arguments.json:
        say(json.dumps([verdict.plain() for verdict in verdicts], indent=2, ensure_ascii=False))
    else:
        for number, verdict in enumerate(verdicts):
            heading = [visible(f"{verdict.folder}:")] if len(verdicts) > 1 else []
            say("\n".join([*([""] if number else []), *heading, *verdict.lines()]))
    return int(not all(verdict.healthy for verdict in verdicts))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="align diagnose",
        description="Say of finished or running runs what improved, what it cost, what is unhealthy and what to try "
        "(docs/diagnosis.md). The exit code is 0 if nothing is unhealthy, 1 if something is.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run")
    parser.add_argument("--json", action="store_true", help="print a list with one JSON object for each run")
    return parser
