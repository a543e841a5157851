"""Rows of text files: JSON lines, JSON documents, CSV and TSV, each with the line that it begins on.

JSON is parsed here rather than by `datasets`, which fills missing columns with nulls and has no line numbers.
"""

from __future__ import annotations

import ast
import csv
import json
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from align.data.reading.compression import LONGEST, file_position, opened
from align.data.reading.rows import Block, RawRow, in_blocks
from align.data.words import PROMPTS, words_of
from align.errors import UserError, first_line

__all__ = ["read_csv", "read_json"]

_BLOCK = 2**22
"""Bytes of JSON lines that one process reads at a time."""
_BOM = b"\xef\xbb\xbf"
_PYTHON = re.compile(rb"\[?\s*\{\s*'")
_JSON = re.compile(r"""\s*(?:\[\s*)?\{\s*(?:["']|$)|\s*\[\s*$""")
"""First line of JSON, or of Python's dictionaries."""
_PROSE = 4  # words from which on a text is no name of a column
_BLANKS = re.compile(r"\s*")
_SEPARATOR = re.compile(r"\s*,?\s*")
_AROUND_ROWS = ("data", "rows", "examples", "instances", "items", "records", "dataset", "train", "test", "validation")
"""Names of the list of rows in a JSON object around it."""


def read_json(path: Path) -> Iterator[Block]:
    """Yield the rows of JSON lines, or of one JSON document: a list, or an object around a list; the content decides.

    A list alone in the first of several lines is a bad row where the name says that these are rows.

    A problem of the whole file (cut off, wrong encoding, empty) raises `UserError`; one of a row is that row's
    `problem`.
    """
    with opened(path) as stream:
        start = stream.read(4096).removeprefix(_BOM).lstrip()
    if not start:
        raise UserError(f"{path}: the file is empty; write the data again.")
    _require_json(start, path)
    with opened(path) as stream:
        first = stream.readline(LONGEST)
        alone = not stream.read(4096).strip()
    is_row = ".jsonl" in path.name and not alone and _is_whole(first, list)
    if start.startswith(b"[") and not is_row:
        with opened(path) as stream:
            yield from in_blocks(_array(_document(stream, path), path))
        return
    if start.startswith(b"{") and (alone or not _is_whole(first, dict)):
        with opened(path) as stream:
            whole = _document(stream, path)
        if (rows := _inside_object(whole, path)) is not None:
            yield from in_blocks(rows)
            return
    with opened(path) as stream:
        yield from _lines(stream, path)


def _require_json(start: bytes, path: Path) -> None:
    """Name the cause where the beginning shows that the file as a whole is something else."""
    _require_bytes_of_text(start, path)
    if _PYTHON.match(start):
        raise UserError(f"{path}: the rows are Python dictionaries, not JSON; write each with json.dumps.")
    lines = start.splitlines()
    is_table = any(separator in lines[0] for separator in (b",", b";", b"\t", b"|"))
    if is_table and not any(line.lstrip().startswith((b"{", b"[")) for line in lines):
        raise UserError(f"{path}: the file is no JSON; if it is a table of cells, rename it to end in .csv.")


def _require_bytes_of_text(start: bytes, path: Path) -> None:
    if b"\0" in start[:2] or start.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        raise UserError(f"{path}: the text is UTF-16; convert the file to UTF-8.")


def _is_whole(line: bytes, kind: type) -> bool:
    """Return whether the line is a whole JSON value of a kind; more lines behind it are then rows of their own."""
    try:
        return isinstance(json.loads(line.removeprefix(_BOM)), kind)
    except (ValueError, RecursionError):
        return False


def _inside_object(text: str, path: Path) -> Iterator[RawRow] | None:
    """Return the rows of the list in one JSON object, or of objects written over several lines; None: neither is it."""
    parser = _Parser()
    values: list[tuple[RawRow, int]] = []
    position = 0
    while text[position:].strip():
        position = cast(re.Match[str], _SEPARATOR.match(text, position)).end()
        line = text.count("\n", 0, position) + 1
        row, end = parser.parse_at(text, position, f"{path.name}:{line}", path)
        if row.problem == "invalid JSON":
            return None
        values.append((row, position))
        position = end
        if len(values) > 1:
            break
    if len(values) > 1:
        if "\n" not in text[values[0][1] : values[1][1]]:
            raise UserError(f"{values[0][0].place}: several JSON objects stand in one line; write a line for each.")
        return _array("[" + text + "]", path)
    value = values[0][0].value
    if not isinstance(value, Mapping):
        return iter([values[0][0]])
    around = cast(Mapping[str, Any], value)
    named = [name for name in _AROUND_ROWS if isinstance(around.get(name), list)]
    if not named:
        return _table(around, path) or iter([values[0][0]])
    named += [name for name, rows in around.items() if name not in named and _are_objects(rows)]
    if len(named) > 1:
        raise UserError(f"{path}: the file has several lists of rows ({', '.join(named)}); write one file for each.")
    if asked := [name for name, text in around.items() if text and not PROMPTS.isdisjoint(words_of(name))]:
        raise UserError(
            f"{path}: {asked[0]} stands beside the rows ({named[0]}); write it into each row, or remove it."
        )
    start = cast(re.Match[str], re.search(rf'"{named[0]}"\s*:\s*\[', text)).end() - 1
    return _array(text[start:], path, before=text.count("\n", 0, start), more_follows=True)


@dataclass(frozen=True)
class _Lines:
    """A block of JSON lines."""

    path: Path
    data: bytes
    first: int
    """Number of the first line."""
    offset: int
    """Bytes before it."""
    size: int = 0
    is_last: bool = False
    """Nothing but white space follows."""

    def __iter__(self) -> Iterator[RawRow]:
        parser, offset, broken = _Parser(), self.offset, None
        for number, line in enumerate(self.data.split(b"\n"), self.first):
            text = _decoded(line, self.path, offset)
            offset += len(line) + 1
            if number == 1:
                text = text.removeprefix("\ufeff")
            if not (text := text.strip()):
                continue
            if broken:
                yield broken
            row = parser.parse(text, f"{self.path.name}:{number}", self.path)
            broken = row if row.problem == "invalid JSON" else None
            if not broken:
                yield row
        if broken and self.is_last:
            raise UserError(
                f"{self.path}: the last line ({broken.place}) is no complete JSON object, so the file seems cut off; "
                "copy or write it again."
            )
        if broken:
            yield broken


def _lines(stream: BinaryIO, path: Path) -> Iterator[_Lines]:
    number, offset, before, held = 1, 0, 0, None
    while data := stream.read(_BLOCK):
        data += stream.readline(LONGEST + 1)
        lines = data.count(b"\n")
        if len(data) - data.rfind(b"\n", 0, -1) > LONGEST:
            number += lines - data.endswith(b"\n")
            raise UserError(f"{path}: line {number} is longer than {LONGEST >> 20} MB, which is no row of text.")
        if data.strip():
            if held:
                yield held
            held = _Lines(path, data, number, offset, (read := file_position(stream)) - before)
            before = read
        number, offset = number + lines, offset + len(data)
    if held:
        yield replace(held, is_last=True)


def _document(stream: BinaryIO, path: Path) -> str:
    return _decoded(stream.read(), path, 0).removeprefix("\ufeff")


def _are_objects(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in cast(list[Any], value))


def _table(columns: Mapping[str, Any], path: Path) -> Iterator[RawRow] | None:
    """Return the rows of an object of columns, as ``Dataset.to_dict`` makes it; None where it is a row itself."""
    lists = [cast(list[Any], cells) for cells in columns.values() if isinstance(cells, list)]
    if len(lists) < max(2, len(columns)) or any(map(_are_objects, lists)) or len({*map(len, lists)}) > 1:
        return None
    rows = (dict(zip(columns, cells, strict=True)) for cells in zip(*lists, strict=True))
    return (RawRow(f"{path.name}: row {i}", row) for i, row in enumerate(rows, 1))


def _array(text: str, path: Path, *, before: int = 0, more_follows: bool = False) -> Iterator[RawRow]:
    """Yield the rows of a list; `before` lines stand before the text, and `more_follows` behind the list.

    A list in one line has the numbers of its rows for places, `file: row 17`.
    """
    parser = _Parser()
    position, line, counted, row_number = text.index("[") + 1, 1 + before, 0, 0
    in_one_line = _is_one_line(text, position, more_follows=more_follows)
    while True:
        position = cast(re.Match[str], _SEPARATOR.match(text, position)).end()
        line, counted, row_number = line + text.count("\n", counted, position), position, row_number + 1
        if text[position : position + 1] == "]" and (more_follows or not text[position + 1 :].strip()):
            return
        place = f"{path.name}: row {row_number}" if in_one_line else f"{path.name}:{line}"
        row, position = parser.parse_at(text, position, place, path)
        if row.problem == "invalid JSON":
            raise UserError(f"{row.place}: the JSON array is damaged or cut off here; write the file again.")
        yield row


def _is_one_line(text: str, start: int, *, more_follows: bool) -> bool:
    """Return whether all rows of a list, which begin behind `start`, stand in one line."""
    end = text.rfind("]")
    if not more_follows and _BLANKS.fullmatch(text, end + 1) is None:
        return False
    line_end = text.find("\n", cast(re.Match[str], _BLANKS.match(text, start)).end(), end)
    return line_end < 0 or _BLANKS.fullmatch(text, line_end, end) is not None


def read_csv(path: Path) -> Iterator[Block]:
    """Yield the rows of a file of values between commas, semicolons, tabs or bars, with a line of names.

    An empty cell is null; one that holds a JSON or Python list or object is that value. A first column of row numbers
    without a name, as pandas writes its index, is not read.
    """
    with opened(path) as stream:
        first_bytes = stream.read(2**16)
    _require_bytes_of_text(first_bytes, path)
    start = first_bytes.decode("utf-8-sig", errors="ignore")
    if not start.strip():
        raise UserError(f"{path}: the file is empty; write the data again.")
    if "\r" in start[:-1] and "\n" not in start:
        raise UserError(f"{path}: the lines end in carriage returns alone; convert them to line feeds.")
    first = start.lstrip().splitlines()[0]
    if _JSON.match(first):
        raise UserError(f"{path}: the file is JSON, not a table of cells; rename it to end in .jsonl.")
    return in_blocks(_records(path, _delimiter(first)))


def _records(path: Path, delimiter: str) -> Iterator[RawRow]:
    with opened(path) as stream:
        csv.field_size_limit(LONGEST)
        reader = csv.reader(_text_lines(stream, path), delimiter=delimiter, strict=True)
        try:
            names = _names(next(reader), path)
            line, index = reader.line_num + 1, -1
            for cells in reader:
                place, line = f"{path.name}:{line}", reader.line_num + 1
                if len(cells) == len(names):
                    if not names[0]:
                        index = _next_index(cells[0], index, place)
                    cut = int(not names[0])
                    yield RawRow(place, dict(zip(names[cut:], map(_cell, cells[cut:]), strict=True)))
                elif cells:
                    yield RawRow(place, None, f"{len(cells)} cells under {len(names)} names")
        except csv.Error as error:
            raise UserError(f"{path}:{reader.line_num}: not a table of cells ({first_line(error)}).") from error


def _names(cells: list[str], path: Path) -> list[str]:
    """Return the names of the columns, of which the first may be empty."""
    names = [name.strip() for name in cells]
    shown = ", ".join(names)[:80]
    prose = [name for name in names if len(name.split()) >= _PROSE]
    if len(names) > 1 and len(prose) * 2 > len(names):
        raise UserError(
            f"{path}: the first line holds data, not names ({shown}); write a line such as prompt,chosen,rejected "
            "above it."
        )
    if len(set(names)) != len(names) or not all(names[1:]) or names == [""]:
        raise UserError(
            f"{path}: the first line must name every column once, not {shown}; if it is data, write names above it."
        )
    return names


def _next_index(cell: str, last: int, place: str) -> int:
    """Return the row number in a column without a name; it grows from row to row."""
    if not cell.isdecimal() or int(cell) <= last:
        raise UserError(f"{place}: the first column has no name and holds no row numbers ({cell!r:.40}); name it.")
    return int(cell)


def _text_lines(stream: BinaryIO, path: Path) -> Iterator[str]:
    offset = 0
    while line := stream.readline(LONGEST):
        yield _decoded(line, path, offset).removeprefix("\ufeff" if offset == 0 else "")
        offset += len(line)


def _delimiter(first: str) -> str:
    return max(",;\t|", key=first.count)


def _cell(text: str) -> Any:
    if not text:
        return None
    if text.startswith(("[{", "{", '["', "['")):
        for parse in (json.loads, ast.literal_eval):
            try:
                return parse(text)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    return text


def _decoded(data: bytes, path: Path, offset: int) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {offset + error.start} is not UTF-8; convert the file to UTF-8.") from error


def _has_no_duplicates(value: dict[str, Any], text: str) -> bool:
    """Return True if no object of a text has a key twice; False where that takes a closer look.

    Every key ends in `":`, so that the text has as many of them as there are keys, or more.
    """
    count = len(value)
    for item in value.values():
        if type(item) is list:
            for part in cast(list[Any], item):
                if type(part) is dict:
                    count += len(cast(dict[str, Any], part))
    return count == text.count('":') and " :" not in text and "\t:" not in text and "\r:" not in text


class _Parser:
    """A JSON decoder that detects duplicate keys."""

    def __init__(self) -> None:
        self._plain = json.JSONDecoder()
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object)
        self._duplicate = False

    def parse(self, text: str, place: str, path: Path) -> RawRow:
        """Parse a text that holds one value and nothing else, no white space around it either."""
        try:
            value, end = self._plain.raw_decode(text)
        except (ValueError, RecursionError):
            value, end = None, 0
        if type(value) is not dict or not _has_no_duplicates(cast(dict[str, Any], value), text):
            row, end = self.parse_at(text, 0, place, path)
        else:
            row = RawRow(place, value)
        return row if row.problem or end == len(text) else RawRow(place, None, "invalid JSON")

    def parse_at(self, text: str, position: int, place: str, path: Path) -> tuple[RawRow, int]:
        """Parse the value that begins at `position`; return it and where it ends."""
        self._duplicate = False
        try:
            value, end = self._decoder.raw_decode(text, position)
        except RecursionError as error:
            raise UserError(
                f"{place}: the row of {path} is nested too deeply to be preference data; remove it."
            ) from error
        except ValueError:
            return RawRow(place, None, "invalid JSON"), position
        problem = "duplicate keys" if self._duplicate else ""
        if not problem and not isinstance(value, Mapping):
            problem = "not an object"
        return RawRow(place, value, problem), end

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        self._duplicate |= len(result) != len(pairs)
        return result
