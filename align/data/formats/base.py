"""The class of all formats, and the columns that distinguish them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

from align.data.formats.labels import Labels
from align.data.schema import DRAWN_COLUMNS, SCORE_COLUMNS
from align.data.unread import Gives, Unread, judge, parts, verdicts
from align.errors import UserError

__all__ = ["ASKED", "SHARED_COLUMNS", "Format", "Sample", "UnknownFormatError", "shared_fields"]

SHARED_COLUMNS = frozenset({*SCORE_COLUMNS, "prompt_id", "ranking", "tools", "answer", "source", *DRAWN_COLUMNS})
"""Optional columns of the pairwise format that the formats pass on."""
_LONG = 8  # characters of a text that two columns do not have by chance
ASKED = frozenset({"instruction", "prompt", "query", "question"})
"""Names of a column of prompts."""
_PASSED_ON = frozenset({"source"})
"""Shared columns that say what a row is, if they hold what their name says."""


class UnknownFormatError(UserError):
    """No format fits the columns, or more than one does."""

    def __init__(self, message: str) -> None:
        super().__init__(message.encode(errors="replace").decode())  # columns may have half a character


@dataclass(frozen=True)
class Sample:
    """The first rows of a source, for recognising its format."""

    columns: frozenset[str]
    """The set of columns that most of the rows have."""
    rows: Sequence[Mapping[str, Any]]

    def values(self, name: str) -> list[Any]:
        """Return what a column has, without nulls."""
        return [row[name] for row in self.rows if row.get(name) is not None]

    def judges(self, name: str) -> bool:
        """Return whether a column, or something in it, may say how good an answer is."""
        return bool(verdicts(name, self.values(name)))

    def mostly(self, name: str, check: Callable[[Any], bool]) -> bool:
        """Return whether more than half of what a column has passes the check."""
        values = self.values(name)
        return 2 * sum(map(check, values)) > len(values)

    def carries(self, name: str, *, any_text: bool) -> bool:
        """Return whether a column holds a prompt, an answer or a label: :func:`align.data.unread.parts`."""
        return bool(parts(name, [value for value in self.values(name) if value not in ([], "", {})], any_text=any_text))


def _always(_: Sample) -> bool:
    return True


def _nothing(_: Any) -> Iterable[Mapping[str, Any]]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Format:
    """One format of preference data."""

    name: str
    description: str
    """One line for lists and help texts."""
    polarity: str
    """The side that becomes `chosen`, with the reason."""
    requires: frozenset[str]
    """Columns that every file of this format has."""
    one_of: tuple[frozenset[str], ...] = ()
    """Columns of which every file has at least one, of each set."""
    convert: Callable[[Mapping[str, Any]], Iterable[Mapping[str, Any]]] = _nothing
    """One raw row → fields of the pairwise format for each of its pairs; raises `RowError`."""
    gather: str | None = None
    """Column whose value the rows of one ranking share."""
    convert_group: Callable[[Sequence[Mapping[str, Any]]], Iterable[Mapping[str, Any]]] = _nothing
    """As `convert`, for the rows that `gather` puts together."""
    gives: Gives = "pairs"
    """Kind of rows that it makes; rankings are pairs."""
    recognises: Callable[[Sample], bool] = _always
    """A further check of rows that have the required columns."""
    labels: Labels | None = None
    """The columns that say which answer is better, if it is not said by their names alone."""
    optional: frozenset[str] = SHARED_COLUMNS
    """Columns that are read if they exist, or that its files have and that are known to be no part of an answer."""

    inside: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    """Columns of objects, or of lists of objects → their fields that are read or known to be no part of an answer."""

    @cached_property
    def columns(self) -> frozenset[str]:
        """All columns that are read; others are reported as not read."""
        return self.requires.union(self.optional, *self.one_of)

    @cached_property
    def _judged(self) -> frozenset[str]:
        return self.columns - _PASSED_ON

    def left(self, row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Yield what is to be judged of a row: columns and fields inside them that are not read, or only passed on."""
        for name in row.keys() - self._judged:
            yield name, row[name]
        for name, known in self.inside.items():
            items = row.get(name)
            for item in cast(list[Any], items) if isinstance(items, list) else [items]:
                if isinstance(item, Mapping) and not known.isdisjoint(item):
                    yield from ((f"{name}.{key}", item[key]) for key in item.keys() - known)

    @property
    def looks(self) -> bool:
        """True if it looks at values, not at the names of columns alone."""
        return self.recognises is not _always

    def fits(self, sample: Sample) -> bool:
        """Return whether the sample has the required columns, passes `recognises`, and leaves nothing out.

        A column that is not read must not hold a prompt, an answer or a label: what looks like one would be dropped.
        """
        return not self.lacks(sample) and self.recognises(sample) and not self.unread(sample).names

    def unknown_labels(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """Return why the labels of the rows cannot be relied on; nothing if they can."""
        return "" if self.labels is None else self.labels.refusal(rows)

    def lacks(self, sample: Sample) -> list[str]:
        """Return the columns that the format needs and the sample does not have."""
        choices = [" or ".join(sorted(names)) for names in self.one_of if not names & sample.columns]
        return [*sorted(self.requires - sample.columns), *choices]

    @property
    def needs(self) -> int:
        """Number of columns that every file of this format has."""
        return len(self.requires) + len(self.one_of)

    def unread(self, sample: Sample) -> Unread:
        """Return the columns that are not read although they may matter, of all rows that can be read."""
        columns: dict[str, list[Any]] = {}
        for row in sample.rows:
            if self.reads(row):
                for name, value in self.left(row):
                    if name in _PASSED_ON or not self._repeats_prompt(row, value):
                        columns.setdefault(name, []).append(value)
        return judge(columns, self.gives)

    def _repeats_prompt(self, row: Mapping[str, Any], value: object) -> bool:
        """Return whether a text of some length stands in the prompt's own column: it says nothing more."""
        if not isinstance(value, str) or len(value) < _LONG or self.gives == "prompts":
            return False
        return any(isinstance(text := row.get(name), str) and value in text for name in ASKED & self.columns)

    def reads(self, row: Mapping[str, Any]) -> bool:
        """Return whether a row has the columns that the format needs."""
        return self.requires <= row.keys() and all(names & row.keys() for names in self.one_of)

    def objection(self, unread: Unread) -> tuple[str, str]:
        """Return the sentences that say why columns may not be left unread, and what to write; the first ones found.

        For parts, there may be more to write: a mapping that keeps them.
        """
        write, read = f"Write data.format={self.name}", f"data.format={self.name} reads"
        if unread.verdicts:
            reason = f"{', '.join(unread.verdicts)} may say that an answer is bad; {read} all as good ones."
            return reason, f"{write}, or give a column `label`: true for a good answer, false for a bad one."
        if unread.turns:
            reason = f"{', '.join(unread.turns)} may say that the worse answer is chosen; {read} it as the better one."
            return reason, f"{write}, or remove the column when the sides that are wrong are swapped."
        lost = f"As {self.name} it would lose {', '.join(unread.parts)}, which looks like a part of the data"
        return f"{lost}; {read} it so.", f"{write}, or remove the columns that are not to be read."


def shared_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the optional columns of the pairwise format that the row has."""
    return {name: row[name] for name in SHARED_COLUMNS if name in row}
