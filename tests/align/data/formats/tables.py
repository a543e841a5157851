"""Tables of rows in the layout of a public data set, each with what it must become, written down by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from align.data import Preferences
from align.data.formats import known_formats
from align.data.load_report import UNKNOWN_LABEL, LoadReport, RowError
from align.errors import UserError

Outcome = tuple[Any, ...] | list[tuple[Any, ...]] | str
"""(prompt, chosen, rejected), maybe with a dictionary of scores; a list of them; or the reason that a row is lost."""

_SCORES = ("chosen_score", "rejected_score", "margin")


def said(messages: Sequence[Any] | None) -> Any:
    """Return messages in short: a text, or pairs of role and content."""
    if messages is None:
        return None
    if [message["role"] for message in messages] == [None]:
        return messages[0]["content"]
    return [(message["role"], message["content"]) for message in messages]


def answered(content: str) -> list[tuple[str, str]]:
    return [("assistant", content)]


def asked(content: str) -> list[tuple[str, str]]:
    return [("user", content)]


def messages(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


def sharegpt(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"from": role, "value": content} for role, content in turns]


def read(rows: Iterable[Any], **options: Any) -> tuple[list[tuple[Any, ...]], LoadReport]:
    """Return the rows in short, and the report; no number of bad rows is an error."""
    preferences = Preferences.from_rows(rows, **{"max_rejected": 1.0} | options)
    made: list[tuple[Any, ...]] = []
    for row in preferences:
        scores = {name: row[name] for name in _SCORES if row[name] is not None}
        made.append((said(row["prompt"]), said(row["chosen"]), said(row["rejected"]), *([scores] if scores else [])))
    return made, preferences.report


def check(name: str, table: Sequence[tuple[dict[str, Any], Outcome]], **options: Any) -> None:
    """Compare what a format makes of a table's rows with the table; unknown labels are tried each alone."""
    for row, _ in [case for case in table if case[1] == UNKNOWN_LABEL]:
        with pytest.raises(RowError, match=UNKNOWN_LABEL):
            list(known_formats()[name].convert(row))
        with pytest.raises(UserError, match=f"is read as {name}, but `.*` is .*; it must be .*: write these"):
            read([row], **{"format": name} | options)
    table = [case for case in table if case[1] != UNKNOWN_LABEL]
    made, report = read([row for row, _ in table], **options)
    kept = [outcome for _, outcome in table if not isinstance(outcome, str)]
    expected = [one for outcome in kept for one in (outcome if isinstance(outcome, list) else [outcome])]
    assert report.rule == name
    assert made == expected
    assert Counter(report.rejected) + Counter(report.left_out) == Counter(
        outcome for _, outcome in table if isinstance(outcome, str)
    )
