"""Raw rows from files, folders and the hub, each with its place.

JSON is parsed here rather than by `datasets`, which fills missing columns with nulls and has no line numbers.
A problem of the whole file (cut off, wrong encoding, empty) raises `UserError`; a problem of one row becomes that row's
`problem`.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from align.errors import UserError, did_you_mean

__all__ = ["WORLD", "RawRow", "read_rows", "rows_in_memory"]

WORLD = {
    "world": "pairs.jsonl",
    "world/heldout": "heldout.jsonl",
    "world/demonstrations": "demonstrations.jsonl",
    "world/prompts": "prompts.jsonl",
}
"""Name of embedded data → asset."""

_SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_BOM = b"\xef\xbb\xbf"
_SPLIT_NAME = re.compile(r"(train|test|validation|valid|val|dev|eval|heldout)(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class RawRow:
    """One row before any check."""

    place: str
    """`file:line`, or `name:row` if there are no lines; counted from 1."""
    value: object
    problem: str = ""
    """Reason that the row cannot be used in any format; "" if there is none."""


def read_rows(source: str | Path, split: str) -> Iterator[RawRow]:
    """Yield the rows of a file, a folder, an embedded name or a hub name.

    `split` applies to a folder or hub data set; a single file has none.
    """
    if str(source) in WORLD:
        from align.world import asset

        return _read_file(Path(asset(WORLD[str(source)])))
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_folder(path, split)
    if path.exists():
        return _read_file(path)
    if str(source).endswith(_SUFFIXES) or not _HUB_NAME.fullmatch(str(source)) or str(source).startswith("world/"):
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(
            f"data {str(source)!r}: there is no such file or folder; give a path, a hub name or one of "
            f"{', '.join(WORLD)}.{did_you_mean(path.name, siblings) or did_you_mean(str(source), WORLD)}"
        )
    return _read_hub(str(source), split)


def rows_in_memory(rows: Iterable[object], name: str) -> Iterator[RawRow]:
    """Yield rows in memory, with places `name:1`, `name:2` …"""
    for number, value in enumerate(rows, 1):
        yield RawRow(f"{name}:{number}", value)


def _read_file(path: Path) -> Iterator[RawRow]:
    if path.name.endswith(".parquet"):
        return _read_parquet(path)
    if not path.name.endswith(_SUFFIXES):
        raise UserError(f"{path}: data files end in {', '.join(_SUFFIXES)}; convert or rename the file.")
    return _read_json(path)


def _read_folder(path: Path, split: str) -> Iterator[RawRow]:
    if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        return _read_saved(path, split)
    files = sorted(file for file in path.rglob("*") if file.name.endswith(_SUFFIXES) and file.is_file())
    by_split: dict[str, list[Path]] = {}
    for file in files:
        names = map(_SPLIT_NAME.match, reversed(file.relative_to(path).parts))
        named = next(filter(None, names), None)
        by_split.setdefault(named[1].lower() if named else "train", []).append(file)
    if split not in by_split:
        found = ", ".join(sorted(by_split)) or f"no file that ends in {', '.join(_SUFFIXES)}"
        raise UserError(f"{path}: the folder has no split {split!r} (found: {found}); choose one with data.split=.")
    return (row for file in by_split[split] for row in _read_file(file))


def _read_saved(path: Path, split: str) -> Iterator[RawRow]:
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: the folder cannot be read by datasets.load_from_disk: {error}.") from error
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            raise UserError(
                f"{path}: no split {split!r} (found: {', '.join(map(str, found))}); choose one with data.split=."
            )
        found = found[split]
    return rows_in_memory(cast(Iterable[object], found), path.name)


def _read_hub(name: str, split: str) -> Iterator[RawRow]:
    import datasets

    try:
        found = datasets.load_dataset(name, split=split)
    except (OSError, ValueError) as error:
        raise UserError(
            f"data {name!r} is no file and could not be loaded from the hub (split {split!r}): {error}"
        ) from error
    return rows_in_memory(cast(Iterable[object], found), name)


def _read_parquet(path: Path) -> Iterator[RawRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        batches = pq.ParquetFile(path).iter_batches(batch_size=1000)
        yield from rows_in_memory((row for batch in batches for row in batch.to_pylist()), path.name)
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: is not a readable Parquet file ({error}); write it again.") from error


def _read_json(path: Path) -> Iterator[RawRow]:
    """Yield the rows of JSON lines or of one JSON array, compressed or not; the first bytes decide."""
    try:
        with _opened(path) as stream:
            start = stream.read(4096).removeprefix(_BOM).lstrip()
        if not start:
            raise UserError(f"{path}: the file is empty; write the data again.")
        with _opened(path) as stream:
            yield from _array(stream, path) if start.startswith(b"[") else _lines(stream, path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: the compressed file is damaged or cut off ({error}); copy it again.") from error


def _opened(path: Path) -> BinaryIO:
    with path.open("rb") as stream:
        compressed = stream.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path, "rb") if compressed else path.open("rb"))


def _lines(stream: BinaryIO, path: Path) -> Iterator[RawRow]:
    parser, offset, broken = _Parser(), 0, None
    for number, line in enumerate(stream, 1):
        text = _decoded(line, path, offset)
        offset += len(line)
        if number == 1:
            text = text.removeprefix("\ufeff")
        if not text.strip():
            continue
        if broken:
            yield broken
        row = parser.parse(text, f"{path.name}:{number}", path)
        broken = row if row.problem == "invalid JSON" else None
        if not broken:
            yield row
    if broken:
        raise UserError(
            f"{path}: the last line ({broken.place}) is no complete JSON object, so the file seems cut off; "
            "copy or write it again."
        )


def _array(stream: BinaryIO, path: Path) -> Iterator[RawRow]:
    text = _decoded(stream.read(), path, 0).removeprefix("\ufeff")
    parser = _Parser()
    position, line, counted = text.index("[") + 1, 1, 0
    separator = re.compile(r"\s*,?\s*")
    while True:
        position = cast(re.Match[str], separator.match(text, position)).end()
        line, counted = line + text.count("\n", counted, position), position
        if text[position : position + 1] == "]" and not text[position + 1 :].strip():
            return
        row, position = parser.parse_at(text, position, f"{path.name}:{line}", path)
        if row.problem == "invalid JSON":
            raise UserError(f"{row.place}: the JSON array is damaged or cut off here; write the file again.")
        yield row


def _decoded(data: bytes, path: Path, offset: int) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {offset + error.start} is not UTF-8; convert the file to UTF-8.") from error


class _Parser:
    """A JSON decoder that detects duplicate keys."""

    def __init__(self) -> None:
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object)
        self._duplicate = False

    def parse(self, text: str, place: str, path: Path) -> RawRow:
        """Parse a line that holds one value and nothing else."""
        stripped = text.strip()
        row, end = self.parse_at(stripped, 0, place, path)
        return row if row.problem or end == len(stripped) else RawRow(place, None, "invalid JSON")

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
