"""Checked rows as Arrow: in memory, or in a file of the datasets cache where they are many."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from align.data.load_report import LoadReport
from align.data.schema import COLUMNS, Message, arrow_schema, present
from align.system.files import write_json

if TYPE_CHECKING:
    import datasets

__all__ = ["batch_of", "batches_of", "cache_folder", "keep", "read_kept", "rows_of", "store"]

_CHUNK_ROWS = 10_000
_CHUNKS_IN_MEMORY = 10
"""Data of fewer chunks is held in memory, more of them in a file."""
_MESSAGES = ("prompt", "chosen", "rejected")
_PLAIN = ("role", "content")
"""Fields that every message has."""


def store(batches: Iterable[Any]) -> tuple[datasets.Dataset, str]:
    """Collect batches of rows, made by :func:`batch_of`; return them with their fingerprint.

    Large data goes into a file of the datasets cache as it comes and is mapped into memory from there.
    """
    import datasets
    import pyarrow as pa
    from datasets.table import InMemoryTable

    schema, digest, folder = arrow_schema(), hashlib.sha256(), cache_folder()

    def chunks() -> Iterator[Any]:
        for chunk in _chunks(batches):
            digest.update(chunk.select(list(COLUMNS)).serialize())
            yield chunk

    made = chunks()
    held = list(islice(made, _CHUNKS_IN_MEMORY if folder is not None else None))
    if folder is None or len(held) < _CHUNKS_IN_MEMORY:
        name = digest.hexdigest()
        table = InMemoryTable(pa.Table.from_batches(held, schema=schema))
        return datasets.Dataset(table, fingerprint=name[:16]), name
    partial = folder / f"rows-{uuid4().hex}.partial"
    try:
        with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            while held:
                writer.write_batch(held.pop(0))
            for chunk in made:
                writer.write_batch(chunk)
        name = digest.hexdigest()
        file = partial.replace(folder / f"rows-{name}.arrow")
    finally:
        partial.unlink(missing_ok=True)
    return datasets.Dataset.from_file(str(file)), name


def _chunks(batches: Iterable[Any]) -> Iterator[Any]:
    """Yield the rows in batches of `_CHUNK_ROWS`, so that the fingerprint does not depend on how they came."""
    import pyarrow as pa

    held: list[Any] = []
    for batch in batches:
        start = 0
        while start < batch.num_rows:
            held.append(batch.slice(start, _CHUNK_ROWS - sum(part.num_rows for part in held)))
            start += held[-1].num_rows
            if sum(part.num_rows for part in held) == _CHUNK_ROWS:
                yield pa.concat_batches(held)
                held = []
    if held:
        yield pa.concat_batches(held)


def batches_of(rows: Iterable[tuple[Mapping[str, Any], str]]) -> Iterator[Any]:
    """Yield batches of rows with their places."""
    left = iter(rows)
    while chunk := list(islice(left, _CHUNK_ROWS)):
        yield batch_of([row for row, _ in chunk], [place for _, place in chunk])


def batch_of(rows: Sequence[Mapping[str, Any]], places: Sequence[str]) -> Any:
    """Return a `pyarrow.RecordBatch` of rows and their places."""
    import pyarrow as pa

    schema = arrow_schema()
    columns: list[Any] = []
    for name in COLUMNS:
        values = [row.get(name) for row in rows]
        of = schema.field(name).type
        columns.append(_turns(values, of) if name in _MESSAGES else pa.array(values, of))
    return pa.record_batch([*columns, pa.array(places, pa.string())], schema=schema)


def _turns(column: Sequence[Sequence[Mapping[str, Any]] | None], of: Any) -> Any:
    """Return a column of messages; pyarrow is several times as slow in taking dictionaries apart."""
    import pyarrow as pa

    turns = [turn for messages in column if messages is not None for turn in messages]
    plain = all(len(turn) == 2 for turn in turns)
    texts = {"role": [turn["role"] for turn in turns], "content": [turn["content"] for turn in turns]}
    fields = [
        pa.nulls(len(turns), pa.string())
        if plain and field.name not in texts
        else pa.array(texts.get(field.name) or [turn.get(field.name) for turn in turns], pa.string())
        for field in of.value_type
    ]
    ends = list(accumulate(0 if messages is None else len(messages) for messages in column))
    starts = [None if messages is None else end - len(messages) for messages, end in zip(column, ends, strict=True)]
    offsets = pa.array([*starts, len(turns)], pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(fields, fields=list(of.value_type))).cast(of)


def rows_of(table: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows of a `pyarrow.Table` as dictionaries, their messages with the fields alone that they have."""
    names = table.column_names
    columns = [_messages_of(table[name]) if name in _MESSAGES else table[name].to_pylist() for name in names]
    return (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))


def _messages_of(column: Any) -> list[list[Message] | None]:
    """Return a column of messages, with the fields alone that they have; pyarrow takes several times as long."""
    import pyarrow as pa
    import pyarrow.compute as pc

    whole = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    turns: Any = whole.flatten()
    fields = {field.name: turns.field(field.name) for field in turns.type}
    texts = {
        name: values.to_pylist() for name, values in fields.items() if name in _PLAIN or values.null_count < len(values)
    }
    made: list[Any] = [dict(zip(texts, values, strict=True)) for values in zip(*texts.values(), strict=True)]
    if len(texts) > len(_PLAIN):
        made = [present(message) for message in made]
    left = iter(made)
    lengths: list[int | None] = pc.list_value_length(whole).to_pylist()  # pyright: ignore
    return [None if length is None else list(islice(left, length)) for length in lengths]


def keep(key: str, dataset: datasets.Dataset, report: LoadReport, fingerprint: str) -> None:
    """Keep the rows of a source, so that :func:`read_kept` finds them under the key."""
    folder = cache_folder()
    if folder is not None and dataset.cache_files:
        write_json(
            folder / f"rows-{key}.json",
            {"file": Path(dataset.cache_files[0]["filename"]).name, "fingerprint": fingerprint, **asdict(report)},
        )


def read_kept(key: str) -> tuple[datasets.Dataset, LoadReport, str] | None:
    """Return rows, report and fingerprint that were kept under a key; None where they are not, or damaged."""
    import datasets
    import pyarrow as pa

    folder = cache_folder()
    if folder is None:
        return None
    record = folder / f"rows-{key}.json"
    try:
        kept = json.loads(record.read_text(encoding="utf-8"))
        dataset = datasets.Dataset.from_file(str(record.parent / kept.pop("file")))
        fingerprint = kept.pop("fingerprint")
        lists: dict[str, Any] = {"examples": {name: tuple(places) for name, places in kept.pop("examples").items()}}
        lists["warnings"] = tuple(kept.pop("warnings"))
        report = LoadReport(**kept, **lists)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowInvalid):
        return None
    return (dataset, report, fingerprint) if len(dataset) == report.kept else None


def cache_folder() -> Path | None:
    """Return our folder in the cache of `datasets`; None where it cannot be made."""
    import datasets.config

    folder = Path(datasets.config.HF_DATASETS_CACHE) / "align"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder
