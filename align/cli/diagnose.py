"""The command ``align diagnose``: the verdict on finished and running runs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from align.cli.console import error_text, report, say
from align.errors import UserError

__all__ = ["main"]


def main(words: Sequence[str]) -> int:
    """Print the verdict on each run; returns 0 if all are healthy, 1 if something is not, 2 for a mistake."""
    arguments = _parser().parse_args(words)
    from align.diagnosis.verdict import Verdict, diagnose
    from align.system.terminal import visible

    verdicts: list[Verdict] = []
    mistakes: list[str] = []
    for folder in arguments.runs:
        try:
            verdicts.append(diagnose(folder))
        except UserError as error:
            mistakes.append(visible(str(error)))
    if arguments.json:
        say(json.dumps([verdict.plain() for verdict in verdicts], indent=2, ensure_ascii=False))
    else:
        for number, verdict in enumerate(verdicts):
            heading = [visible(f"{verdict.folder}:")] if len(arguments.runs) > 1 else []
            say("\n".join([*([""] if number else []), *heading, *verdict.lines()]))
    if mistakes:
        report(error_text(mistakes))
        return 2
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
