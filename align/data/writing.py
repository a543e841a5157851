"""Rows of the pairwise format written as JSON lines or Parquet, for `Preferences.load`.

A file is written beside its place under a hidden name and moved there when it is whole. Of JSON lines a record beside
it says how far they came, so that a later call with the same rows goes on from there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.data.schema import COLUMNS
from align.data.storage import rows_of
from align.errors import UserError
from align.system.files import new_file, partial_of, publish_file, write_json
from align.system.workers import core_count, in_order

if TYPE_CHECKING:
    import datasets

    from align.data.preferences import Preferences

__all__ = ["append_rows", "columns_with_values", "write_jsonl", "write_parquet", "write_rows"]

CHUNK_ROWS = 10_000
_ALONE = 4
"""Chunks that this process writes, before others are started to write the rest."""
_TEXTS = ("prompt", "chosen", "rejected")


def write_rows(data: Preferences, file: Path) -> None:
    """Write all rows as JSON lines."""
    names = columns_with_values(data.dataset)

    def tables(start: int) -> Iterable[Any]:
        rows = data.dataset.with_format("arrow")
        return (rows[i : i + CHUNK_ROWS] for i in range(start, len(rows), CHUNK_ROWS))

    write_jsonl(file, tables, names, {"rows": data.fingerprint})


def append_rows(data: Preferences, file: Path) -> None:
    """Add all rows to the end of a file of JSON lines; they are on disk when this returns."""
    lines, _ = _Lines(tuple(columns_with_values(data.dataset)))(data.dataset.with_format("arrow")[:])
    with file.open("a+b") as stream:
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            lines = lines if stream.read(1) == b"\n" else b"\n" + lines  # a last line that an editor left open
        stream.write(lines)
        stream.flush()
        os.fsync(stream.fileno())


def write_jsonl(
    file: Path, tables: Callable[[int], Iterable[Any]], names: Sequence[str], identity: Mapping[str, Any]
) -> None:
    """Write tables of rows as JSON lines; goes on where an earlier call with the same identity was stopped.

    Args:
        file: One that is there is replaced.
        tables: Number of a row → `pyarrow.Table` of the rows from there on, in chunks that depend on it alone.
        names: Columns to write; all rows have all of them, so that none looks as if it had lost one.
        identity: JSON; what the rows depend on.
    """
    partial = partial_of(file)
    record = partial.with_name(f"{partial.name}.json")
    known = {**identity, "columns": list(names)}
    rows, size = _done(partial, record, known)
    with partial.open("ab") as stream:
        stream.truncate(size)
        for lines, count in in_order(_Lines(tuple(names)), tables(rows), alone=_ALONE, processes=core_count()):
            stream.write(lines)
            rows += count
            stream.flush()
            os.fsync(stream.fileno())
            write_json(record, {"of": known, "rows": rows, "bytes": stream.tell()})
    publish_file(partial, file)
    record.unlink(missing_ok=True)


def _done(partial: Path, record: Path, identity: Mapping[str, Any]) -> tuple[int, int]:
    """Return rows and bytes that an earlier call wrote for good."""
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        if found["of"] == json.loads(json.dumps(identity)) and partial.stat().st_size >= found["bytes"]:
            return found["rows"], found["bytes"]
    except (OSError, ValueError):
        pass
    return 0, 0


@dataclass(frozen=True)
class _Lines:
    """Turns a table into JSON lines, in any process."""

    names: tuple[str, ...]

    def __call__(self, table: Any) -> tuple[bytes, int]:
        rows = list(rows_of(table.select(list(self.names))))
        return "".join(json.dumps(_as_written(row), ensure_ascii=False) + "\n" for row in rows).encode(), len(rows)


def _as_written(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with plain texts as texts."""
    for name in _TEXTS:
        if (messages := row.get(name)) and messages[0]["role"] is None:
            row[name] = messages[0]["content"]
    return row


def columns_with_values(*sources: datasets.Dataset) -> list[str]:
    """Return the columns of the pairwise format that any row has; `chosen` wherever there is a `rejected`."""
    found = {"prompt"}
    for source in sources:
        for table in _tables(source):
            found |= {name for name in COLUMNS if table.column(name).null_count < table.num_rows}
    return [name for name in COLUMNS if name in found or (name == "chosen" and "rejected" in found)]


def _tables(source: datasets.Dataset) -> Iterable[Any]:
    rows: Any = source.with_format("arrow")
    return rows.iter(CHUNK_ROWS)


def write_parquet(source: datasets.Dataset, file: Path) -> None:
    """Write all rows as Parquet, texts as texts.

    Raises:
        UserError: Some rows are texts and others conversations.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = columns_with_values(source)
    fields = {name: set[str]() for name in _TEXTS}
    plain = set[bool]()
    for table in _tables(source):
        for name in _TEXTS:
            turns: Any = pa.concat_arrays([chunk.flatten() for chunk in table.column(name).chunks])
            roles = turns.field("role")
            plain |= set(roles.is_null().unique().to_pylist())
            fields[name] |= {kind.name for kind in turns.type if turns.field(kind.name).null_count < len(turns)}
    if len(plain) > 1:
        raise UserError("a .parquet file holds texts or conversations, and the rows have both; write .jsonl.")
    types: dict[str, Any] = {}
    for name in names:
        types[name] = source.data.schema.field(name).type
        if name in _TEXTS:
            kept = [field for field in types[name].value_type if field.name in fields[name]]
            types[name] = pa.string() if True in plain else pa.list_(pa.struct(kept))
    schema = pa.schema(list(types.items()))
    with new_file(file) as partial, pq.ParquetWriter(partial, schema) as writer:
        for table in _tables(source):
            writer.write_table(pa.table([_as_column(table.column(name), types[name]) for name in names], schema=schema))


def _as_column(column: Any, of: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.type == of or not pa.types.is_string(of):
        return column.cast(of)
    return pc.struct_field(pc.list_element(column, 0), "content")  # pyright: ignore
