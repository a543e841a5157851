"""The command ``align compare``: the same pairs through several methods, and an answer."""

from __future__ import annotations

from collections.abc import Sequence

from align.cli.console import report
from align.cli.parse import groups
from align.errors import UserError

__all__ = ["main"]


def main(words: Sequence[str]) -> int:
    """Do the comparison that ``words`` describe, or go on with it; returns the exit code."""
    from align.cli.compare.words import read_comparison

    try:
        comparison = read_comparison(words, groups.find_configs())
        from align.cli.compare.contest import begin
        from align.cli.compare.outcome import conclude
        from align.cli.compare.stages import Stages

        stages = Stages(begin(comparison))
        try:
            stages.run()
        except KeyboardInterrupt:
            report(f"Stopped; the same command goes on with {stages.contest.folder}.")
            return 130
        conclude(stages)
    except UserError as error:
        report(f"Error: {error}")
        return 2
    return 0
