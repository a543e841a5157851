"""The first sentences of a report: how a run came out."""

from __future__ import annotations

from align.reporting.record import Record
from align.runs.report import win_rate_sentences

__all__ = ["verdict"]


def verdict(record: Record) -> list[str]:
    """Return the most important sentence first."""
    if not record.is_finished:
        last = record.metrics[-1]["step"] if record.metrics else 0
        begun = f"This run is not finished; its log ends with step {last:,}."
    else:
        begun = "" if "win_rate" in record.evaluation else "This run is finished; no win rate was measured."
    count = len(record.warnings)
    warned = f"{count} warning{'s' * (count > 1)} while it trained, with what to change, below." if count else ""
    return [sentence for sentence in (begun, *win_rate_sentences(record.evaluation), warned) if sentence]
