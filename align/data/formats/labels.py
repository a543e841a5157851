"""Labels that say which answer is better: whether a format knows those of a sample, before any row is read.

A label of another counting would keep one half of the rows and reject the other, so that each kept pair is reversed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from align.data.load_report import UNKNOWN_LABEL, UNKNOWN_LABELS_ALLOWED, RowError
from align.data.messages import number

__all__ = ["Labels", "good_or_bad", "lead", "lead_or_0", "of_two", "shown_labels"]

_SHOWN = 4  # labels in a message
_ENOUGH = 10  # strengths, of which some have the other sign
_MOST_TIES = 0.3
_LABEL = re.compile(
    r"(?:(?:model|response|output|answer|assistant|completion|candidate|option|choice|conversation|summary)[ _-]?)?"
    r"(?:(1|a|first|left)|(2|b|second|right))"
)
_TIES = {"tie", "tie (bothbad)", "bothbad", "both_bad", "draw", "equal", "same"}
_OR_0 = _TIES | {"0"}
"""Where responses count from 1 and a documentation says so: elsewhere 0 may be the first of two."""
_GOOD = frozenset({"true", "1", "1.0", "good", "yes", "chosen", "desirable", "win"})
_BAD = frozenset({"false", "0", "0.0", "bad", "no", "rejected", "undesirable", "lose"})


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The columns of a format that are labels, and how one is read."""

    columns: tuple[str, ...]
    accepted: str
    """The labels it may be, each with its meaning: the end of "it must be …"."""
    read: Callable[[Mapping[str, Any], str], Any]
    """The label in this column of a row; raises `RowError` if it is unknown."""
    zero_is_tie: bool = False
    """Whether 0 is a tie: where labels are 0 and 1 alone, or 0 is frequent, it may as well be the first of two."""
    signed: bool = False
    """Whether it is a strength with a sign: where all have the same one, it may count from elsewhere."""

    def refusal(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """Return why the labels of a sample cannot be relied on; nothing if they can."""
        for name in self.columns:
            labelled = [row for row in rows if _is_given(row.get(name))]
            unknown = sum(not self._knows(row, name) for row in labelled)
            if unknown > UNKNOWN_LABELS_ALLOWED * len(labelled):
                return f"`{name}` is {shown_labels(rows, name)}; it must be {self.accepted}: write these."
        numbers = [
            str(value).strip().removesuffix(".0")
            for name in self.columns
            for row in rows
            if _is_given(value := row.get(name))
        ]
        name = self.columns[0]
        if self.signed and len(numbers) >= _ENOUGH and len({number.startswith("-") for number in numbers}) == 1:
            return (
                f"`{name}` is {shown_labels(rows, name)}, all of one sign, so it may count from elsewhere; it must be "
                f"{self.accepted}: write these."
            )
        if self.zero_is_tie and "0" in {*numbers} <= {"0", "1"}:
            return (
                f"`{name}` is {shown_labels(rows, name)} and never 2, so 0 may be a tie or the first of two; "
                f"it must be {self.accepted}: write these."
            )
        if self.zero_is_tie and numbers.count("0") > _MOST_TIES * len(numbers) and {*numbers} <= {"0", "1", "2"}:
            return (
                f"`{name}` is {shown_labels(rows, name)}, so often 0 that it may be the first of two instead of a tie; "
                f"it must be {self.accepted}: write these."
            )
        return ""

    def _knows(self, row: Mapping[str, Any], name: str) -> bool:
        try:
            self.read(row, name)
        except RowError:
            return False
        return True


def lead(row: Mapping[str, Any], name: str, *, ties: Collection[str] = _TIES) -> int:
    """Return 1 if the label of a row names the first response, −1 for the second, 0 for a tie."""
    label = row[name]
    if label is None:
        raise RowError("no label is given", name)
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    word = "" if isinstance(label, bool) else str(label).strip().lower()
    if word in ties:
        return 0
    if found := _LABEL.fullmatch(word.removesuffix(".0")):
        return 1 if found[1] else -1
    raise RowError(UNKNOWN_LABEL, f"{name} is {label!r:.40}")


def lead_or_0(row: Mapping[str, Any], name: str) -> int:
    """Return the same where 0 is a tie too."""
    return lead(row, name, ties=_OR_0)


def of_two(first: int, second: int) -> Callable[[Mapping[str, Any], str], int]:
    """Return what reads 1 or −1 from the first or second of two numbers that a label may be, also as text."""

    def read(row: Mapping[str, Any], name: str) -> int:
        label = row[name]
        found = None if isinstance(label, bool) else number(label, name)
        if found not in (first, second):
            raise RowError(UNKNOWN_LABEL, f"{name} is {label!r:.40}, not {first} or {second}")
        return 1 if found == first else -1

    return read


def good_or_bad(row: Mapping[str, Any], name: str) -> bool:
    """Return whether the label of a single answer says that it is good."""
    word = str(row[name]).strip().lower()
    if word not in _GOOD | _BAD:
        raise RowError(UNKNOWN_LABEL, f"{name} is {row[name]!r:.40}, not true or false")
    return word in _GOOD


def shown_labels(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    """Return the most frequent labels of a column, as JSON has them, for a sentence."""
    counts = Counter(json.dumps(value, default=str)[:24] for row in rows if _is_given(value := row.get(name)))
    return " or ".join(sorted(label for label, _ in counts.most_common(_SHOWN)))


def _is_given(value: object) -> bool:
    return value is not None and value == value  # NaN is what some files have for null
