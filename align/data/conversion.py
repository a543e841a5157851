"""Raw rows to rows of the pairwise format: the layout of a source, its conversion, and the checks of every row."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any, cast

from align.data.formats import Format, Renaming, Sample, find_format, known_formats
from align.data.formats.base import UnknownFormatError
from align.data.formats.mapping import shown_columns
from align.data.formats.transcripts import answers_alone, require_alone
from align.data.formats.turn_marks import is_transcript
from align.data.load_report import RowError
from align.data.messages import MEDIA, kind
from align.data.reading import BLOCK_ROWS, Block, RawRow, Rows, read_blocks
from align.data.schema import CONTINUED, Row, answer_key, prompt_key
from align.data.storage import batch_of
from align.data.unread import judge
from align.data.validation import valid_row
from align.errors import UserError

__all__ = ["Check", "Checked", "Layout"]

_ROWS_OF_A_FILE = 100
"""First rows of each of several files, from which their format is known."""
_MEDIA = frozenset(MEDIA)
_NOTHING: tuple[Any, ...] = (None, "", [], {})
_PLACEHOLDERS = frozenset({"-", "n/a", "na", "nan", "no", "none", "null", "unknown"})
_BEGINNING = 200  # characters by which values of a column are told apart
_SIDES = ("chosen", "rejected")
_WHOLE = "an answer begins as a transcript with marks of its own and stays whole"
_TRANSCRIPT = "the prompt is a transcript with marks of its own and stays one text; give messages to have turns"


@dataclass(frozen=True)
class Layout:
    """Format and column types of most rows of a source; a row that differs is rejected, never filled in."""

    format: Format
    kinds: Mapping[str, str]
    """Columns that the format reads and most rows have → type of most of their values."""
    known: frozenset[str] | None
    """Columns not read of which the first rows have more than one value; None where the user named the format."""

    @classmethod
    def of(cls, head: list[RawRow], format_name: str, by_hand: Sequence[str], source: str) -> Layout:
        """Find the layout of a source from its first rows. Raises `UserError` if there is none, or no format fits."""
        sample = _sample(head)
        if not sample.rows:
            problem = next((row.problem for row in head if row.problem), "none of them an object")
            raise UserError(f"{source}: no row to learn from ({len(head)} read: {problem}); give rows with columns.")
        columns, usable = sample.columns, sample.rows
        found = find_format(format_name, sample, source, by_hand)
        if refusal := found.unknown_labels(usable):
            raise UserError(f"{source} is read as {found.name}, but {refusal}")
        kinds: dict[str, str] = {}
        for name in sorted(columns & found.columns):
            counts = Counter(kind(row[name]) for row in usable if row.get(name) is not None)
            kinds[name] = counts.most_common(1)[0][0] if counts else "null"
        return cls(found, kinds, _seen(found, usable) if format_name == "auto" else None)

    @classmethod
    def of_file(cls, file: Path, renaming: Renaming, by_hand: Sequence[str]) -> Layout:
        """Find the layout of the first rows of one file."""
        return cls.of(_first_rows(file, renaming), "auto", by_hand, str(file))

    def require_of_all(self, files: Sequence[Path], renaming: Renaming, by_hand: Sequence[str], source: str) -> None:
        """Refuse files that are not all in this format: the rows of another would be lost, or read wrongly."""
        good: Path | None = None
        other: tuple[Path, str] | None = None
        for file in files:
            sample = _sample(_first_rows(file, renaming))
            if sample.rows and self._is_other(sample, by_hand):
                other = other or (file, _name_of(sample, by_hand))
            elif sample.rows and (refusal := self.format.unknown_labels(sample.rows)):
                raise UserError(f"{file} is read as {self.format.name}, as the rest of {source}, but {refusal}")
            else:
                good = good or file
            if good and other:
                raise UserError(
                    f"{source}: {good} is {self.format.name}, but {other[0]} is {other[1]}; read each in its own "
                    "format by naming them apart, data.train=[FILE,FILE], or leave one out."
                )

    def _is_other(self, sample: Sample, by_hand: Sequence[str]) -> bool:
        if self.format.lacks(sample) or not self.format.recognises(sample):
            return True
        return not by_hand and bool(self.format.unread(sample).names)

    def fields(self, raw: RawRow) -> Mapping[str, Any]:
        """Return the columns of a row; `RowError` if it lacks one or has another type of value than most rows."""
        if raw.problem or not isinstance(raw.value, Mapping):
            raise RowError(raw.problem or "not an object")
        row = cast(Mapping[str, Any], raw.value)
        if not _MEDIA.isdisjoint(row) and (media := [name for name in MEDIA if row.get(name)]):
            raise RowError("images, video and sound cannot be read", f'column "{media[0]}"')
        for name, usual in self.kinds.items():
            if name not in row:
                raise RowError("missing column", f'no "{name}"')
            if (usual == "messages") if isinstance(row[name], str) else (usual == "text"):
                actual = kind(row[name])
                if actual in ("text", "messages"):
                    raise RowError("column changes type", f'"{name}" is {actual}, in most rows {usual}')
        return row

    def objection(self, columns: Mapping[str, Sequence[Any]]) -> tuple[str, str]:
        """Return a column of a block that may not be left unread, and why; nothing if all may.

        They are judged as in the first rows. Of a column that these have it is known that it is no part of the prompt,
        or the user has left it out.
        """
        if self.known is None:
            return "", ""
        found = judge(columns, self.format.gives, seen=self.known)
        if not found.names:
            return "", ""
        named = (*found.verdicts, *found.turns, *found.parts)[0]
        column = max((name for name in columns if f"{named}.".startswith(f"{name}.")), key=len)
        return column, " ".join(self.format.objection(found))

    def __reduce__(self) -> Any:  # functions of formats cannot be sent to another process
        return _layout, (self.format.name, self.kinds, self.known)


def _seen(format: Format, rows: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Return what is not read of which rows have more than a placeholder such as "none", or one value for all."""
    values: dict[str, set[str]] = {}
    for name, value in (left for row in rows for left in format.left(row)):
        text = str(value)[:_BEGINNING]
        if value not in _NOTHING and text.strip().lower() not in _PLACEHOLDERS:
            values.setdefault(name, set()).add(text)
    return frozenset(name for name, texts in values.items() if len(texts) > 1)


def _first_rows(file: Path, renaming: Renaming) -> list[RawRow]:
    rows = (row for block in read_blocks(file, "") for row in block)
    return [renaming(row) for row in islice(rows, _ROWS_OF_A_FILE)]


def _sample(head: Sequence[RawRow]) -> Sample:
    """Return rows as a sample of the columns that most of them have; without rows where none can be used."""
    usable = [cast(Mapping[str, Any], row.value) for row in head if not row.problem and isinstance(row.value, Mapping)]
    return Sample(Counter(map(frozenset[str], usable)).most_common(1)[0][0] if usable else frozenset(), usable)


def _name_of(sample: Sample, by_hand: Sequence[str]) -> str:
    """Return the name of a sample's format, or what its columns are."""
    try:
        return find_format("auto", sample, "", by_hand).name
    except UnknownFormatError:
        return f"in no format that is known, of {shown_columns(sample)}"


def _layout(name: str, kinds: Mapping[str, str], known: frozenset[str] | None) -> Layout:
    return Layout(known_formats()[name], kinds, known)


@dataclass
class Checked:
    """Rows of a block, each checked for itself, and all that it takes to compare them with those of other blocks."""

    batch: Any = None
    """A `pyarrow.RecordBatch` of the rows that are valid each for itself."""
    size: int = 0
    """Bytes of the file that the block stands for."""
    read: int = 0
    remarks: list[tuple[int, str, RowError | str]] = field(default_factory=list[tuple[int, str, RowError | str]])
    """Valid rows before it, place and reason of a row that is not valid; number, place and remark of a valid one."""
    prompts: array[int] = field(default_factory=lambda: array("Q"))
    """Key of the prompt of each valid row."""
    pairs: array[int] = field(default_factory=lambda: array("Q"))
    """Hash of each valid row's pair in any order, and in its last bit the order; 0 for a row that is no pair."""
    labels: dict[int, tuple[str | None, str | None]] = field(default_factory=dict[int, "tuple[str | None, str | None]"])
    """Number of a row → its `prompt_id` and `ranking`, where one is given."""
    unread: set[str] = field(default_factory=set[str])
    """Columns that the format does not read."""
    objection: str = ""
    """Why they may not be left unread."""
    labels_seen: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    """Column of a pair's label → the first two labels that differ."""


@dataclass(frozen=True)
class Check:
    """Reads the rows of a block and checks each for itself, in any process."""

    layout: Layout
    renaming: Renaming

    def whole(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Yield blocks between which no ranking is divided that becomes of several rows.

        Such rows are put together wherever they stand, for which all of them are held in memory.
        """
        if (column := self.layout.format.gather) is None:
            yield from blocks
            return
        groups: dict[str, list[RawRow]] = {}
        for row in chain.from_iterable(blocks):
            groups.setdefault(self._shared(row, column), []).append(row)
        held: list[RawRow] = []
        for group in groups.values():
            held += group
            if len(held) >= BLOCK_ROWS:
                yield Rows(held)
                held = []
        if held:
            yield Rows(held)

    def _shared(self, row: RawRow, column: str) -> str:
        """Return what tells the ranking of a row from others; of a row that cannot be used nothing."""
        try:
            return json.dumps(self.layout.fields(self.renaming(row))[column], default=str)
        except RowError:
            return ""

    def __call__(self, block: Block) -> Checked:
        """Return the valid rows, and what is to be said of the others."""
        found = Checked(size=block.size)
        rows: list[Row] = []
        places: list[str] = []
        for place, item in self._converted(block, found):
            notes: dict[str, None] = {}
            try:
                asked = answers_alone(item)
                row = valid_row(asked, notes.setdefault)
                require_alone(row, notes.setdefault)
                if isinstance(prompt := asked.get("prompt"), str) and is_transcript(prompt):
                    notes.setdefault(_TRANSCRIPT)
                is_answer = row["prompt"][0]["role"] != CONTINUED  # not a text that is all there is
                if is_answer and any(isinstance(side := asked.get(s), str) and is_transcript(side) for s in _SIDES):
                    notes.setdefault(_WHOLE)
            except RowError as rejection:
                found.remarks.append((len(rows), place, rejection))
                continue
            found.remarks += [(len(rows), place, remark) for remark in notes]
            given = row["prompt_id"] if item.get("prompt_id") is not None else None
            key = row["prompt_id"] if given is None else prompt_key(row["prompt"], row["tools"])
            if given is not None or row["ranking"] is not None:
                found.labels[len(rows)] = (given, row["ranking"])
            found.prompts.append(int(key, 16))
            found.pairs.append(_pair(row, key))
            rows.append(row)
            places.append(place)
        found.batch = batch_of(rows, places)
        return found

    def _converted(self, block: Block, found: Checked) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the fields that each row, or each group of rows, becomes, with their place."""
        format = self.layout.format
        unread: dict[str, list[Any]] = {}
        at: dict[str, list[str]] = {}
        """Places of these values."""
        labels = format.labels.columns if format.labels is not None and format.gives == "pairs" else ()
        for place, values in self._groups(block, found):
            try:
                made = list(format.convert(values[0]) if format.gather is None else format.convert_group(values))
            except RowError as rejection:
                found.remarks.append((len(found.prompts), place, rejection))
                continue
            for value in values:
                for name, cell in format.left(value):
                    unread.setdefault(name, []).append(cell)
                    at.setdefault(name, []).append(place)
                for name in labels:
                    if len(seen := found.labels_seen.setdefault(name, set())) < 2:
                        seen.add(str(value[name]))
            for item in made:
                yield place, item
        inside = tuple(f"{name}." for name in format.inside)
        found.unread = {name for name in unread.keys() - format.columns if not name.startswith(inside)}
        column, objection = self.layout.objection(unread)
        if column:
            first = next(place for place, cell in zip(at[column], unread[column], strict=True) if cell not in _NOTHING)
            found.objection = f"{first} and following: {objection}"

    def _groups(self, block: Block, found: Checked) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
        usable = self._usable(block, found)
        gather = self.layout.format.gather
        if gather is None:
            yield from ((place, [fields]) for place, fields in usable)
            return
        for _, group in groupby(usable, key=lambda row: row[1][gather]):
            members = list(group)
            yield members[0][0], [fields for _, fields in members]

    def _usable(self, block: Block, found: Checked) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the rows that have the columns of the layout."""
        for row in block:
            raw = self.renaming(row)
            found.read += 1
            try:
                fields = self.layout.fields(raw)
            except RowError as rejection:
                found.remarks.append((len(found.prompts), raw.place, rejection))
                continue
            yield raw.place, fields


def _pair(row: Row, key: str) -> int:
    """Return a hash of both sides in any order and, in its last bit, their order; 0 if it is no pair."""
    if not row["chosen"] or not row["rejected"]:
        return 0
    sides = [answer_key(row["chosen"][0]), answer_key(row["rejected"][0])]
    identity = hashlib.blake2b("\0".join([key, *sorted(sides)]).encode(), digest_size=7).digest()
    return int.from_bytes(identity) << 1 | (sides[0] < sides[1])
