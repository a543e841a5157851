"""Raw rows to rows of the pairwise format: the layout of a source, its conversion, and the checks of every row."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, cast

from align.data.formats import Format, Sample, find_format
from align.data.formats.hh import spoken
from align.data.formats.turn_marks import is_transcript
from align.data.load_report import LeftOut, RowError, Tally
from align.data.messages import MEDIA, kind
from align.data.reading import RawRow
from align.data.schema import Row, answer_key, prompt_key
from align.data.validation import BOTH_POLARITIES, valid_row
from align.errors import UserError

__all__ = ["Layout", "valid_rows"]

_MEDIA = frozenset(MEDIA)
_TRANSCRIPT = "the prompt is a transcript with marks of its own and stays one text; give messages to have turns"


@dataclass(frozen=True)
class Layout:
    """Format and column types of most rows of a source; a row that differs is rejected, never filled in."""

    format: Format
    kinds: Mapping[str, str]
    """Columns that the format reads and most rows have → type of most of their values."""

    @classmethod
    def of(cls, head: list[RawRow], format_name: str, by_hand: Sequence[str], source: str) -> Layout:
        """Find the layout of a source from its first rows. Raises `UserError` if there is none, or no format fits."""
        usable = [
            cast(Mapping[str, Any], row.value) for row in head if not row.problem and isinstance(row.value, Mapping)
        ]
        if not usable:
            raise UserError(
                f"{source}: no row to learn from ({len(head)} read, none of them an object); give rows with columns."
            )
        columns = Counter(frozenset(row) for row in usable).most_common(1)[0][0]
        found = find_format(format_name, Sample(columns, usable), source, by_hand)
        kinds: dict[str, str] = {}
        for name in sorted(columns & found.columns):
            counts = Counter(kind(row[name]) for row in usable if row.get(name) is not None)
            kinds[name] = counts.most_common(1)[0][0] if counts else "null"
        return cls(found, kinds)

    def check(self, row: Mapping[str, Any]) -> None:
        """Reject a row that lacks a column or has another type of value in it than most rows."""
        for name, usual in self.kinds.items():
            if name not in row:
                raise RowError("missing column", f'no "{name}"')
            actual = kind(row[name])
            if {actual, usual} == {"text", "messages"}:
                raise RowError("column changes type", f'"{name}" is {actual}, in most rows {usual}')


def valid_rows(rows: Iterable[RawRow], layout: Layout, tally: Tally) -> Iterator[tuple[Row, str]]:
    """Yield every valid row with its place; count rejections and remarks in `tally`."""
    prompts: dict[tuple[str, str], str] = {}
    orientations: dict[bytes, bool] = {}
    for raw, item in _converted(rows, layout, tally):
        notes: dict[str, None] = {}
        try:
            fields = spoken(item)
            row = valid_row(fields, notes.setdefault)
            if isinstance(asked := fields.get("prompt"), str) and is_transcript(asked):
                notes.setdefault(_TRANSCRIPT)
            given = item.get("prompt_id") is not None
            key = prompt_key(row["prompt"], row["tools"]) if given else row["prompt_id"]
            for name in ("prompt_id", "ranking"):
                if (label := row[name]) is not None and prompts.setdefault((name, label), key) != key:
                    raise RowError(f"{name} stands for two prompts", label)
        except RowError as rejection:
            tally.reject(raw.place, rejection)
            continue
        if _contradicts(row, key, orientations):
            notes.setdefault(BOTH_POLARITIES)
        for remark in notes:
            tally.note(raw.place, remark)
        tally.kept += 1
        yield row, raw.place


def _converted(rows: Iterable[RawRow], layout: Layout, tally: Tally) -> Iterator[tuple[RawRow, Mapping[str, Any]]]:
    """Yield the fields that each row, or each group of rows, becomes; count those that cannot be converted."""
    format = layout.format
    usable = _usable(rows, layout, tally)
    groups: Iterable[Iterable[RawRow]] = ([row] for row in usable)
    if format.gather is not None:
        groups = (list(group) for _, group in groupby(usable, key=lambda row: row.value[format.gather]))  # pyright: ignore
    for group in groups:
        members = list(group)
        values = [cast(Mapping[str, Any], row.value) for row in members]
        try:
            made = list(format.convert(values[0]) if format.gather is None else format.convert_group(values))
        except LeftOut as reason:
            tally.leave_out(members[0].place, reason)
            continue
        except RowError as rejection:
            tally.reject(members[0].place, rejection)
            continue
        for name in {name for value in values for name in value} - format.columns:
            tally.warn(f'column "{name}" is not read')
        for item in made:
            yield members[0], item


def _usable(rows: Iterable[RawRow], layout: Layout, tally: Tally) -> Iterator[RawRow]:
    """Yield the rows that have the columns of the layout."""
    for raw in rows:
        tally.read += 1
        try:
            if raw.problem or not isinstance(raw.value, Mapping):
                raise RowError(raw.problem or "not an object")
            fields = cast(Mapping[str, Any], raw.value)
            if not _MEDIA.isdisjoint(fields) and (media := [name for name in MEDIA if fields.get(name)]):
                raise RowError("images, video and sound cannot be read", f'column "{media[0]}"')
            layout.check(fields)
        except RowError as rejection:
            tally.reject(raw.place, rejection)
            continue
        yield raw


def _contradicts(row: Row, key: str, orientations: dict[bytes, bool]) -> bool:
    """Return whether the same pair came before with the other polarity."""
    if not row["chosen"] or not row["rejected"]:
        return False
    sides = [answer_key(row["chosen"][0]), answer_key(row["rejected"][0])]
    identity = hashlib.blake2b("\0".join([key, *sorted(sides)]).encode(), digest_size=16).digest()
    return orientations.setdefault(identity, sides[0] < sides[1]) != (sides[0] < sides[1])
