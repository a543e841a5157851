"""Checked rows as Arrow: in memory, or in a file of the datasets cache where they are many."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from align.data.schema import COLUMNS, arrow_schema

if TYPE_CHECKING:
    import datasets

__all__ = ["store"]

_CHUNK_ROWS = 10_000
_CHUNKS_IN_MEMORY = 10
"""Data of fewer chunks is held in memory, more of them in a file."""


def store(rows: Iterable[tuple[Mapping[str, Any], str]]) -> tuple[datasets.Dataset, str]:
    """Collect rows and their places; return them with their fingerprint.

    Large data goes into a file of the datasets cache as it comes and is mapped into memory from there.
    """
    import datasets.config
    import pyarrow as pa
    from datasets.table import InMemoryTable

    schema, left, digest = arrow_schema(), iter(rows), hashlib.sha256()

    def batches() -> Iterator[Any]:
        while chunk := [{**row, "place": place} for row, place in islice(left, _CHUNK_ROWS)]:
            batch = pa.RecordBatch.from_pylist(chunk, schema=schema)
            digest.update(batch.select(list(COLUMNS)).serialize())
            yield batch

    made = batches()
    held = list(islice(made, _CHUNKS_IN_MEMORY))
    if len(held) < _CHUNKS_IN_MEMORY:
        name = digest.hexdigest()
        table = InMemoryTable(pa.Table.from_batches(held, schema=schema))
        return datasets.Dataset(table, fingerprint=name[:16]), name
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "align"
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"rows-{uuid4().hex}.partial"
    try:
        with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            for batch in chain(held, made):
                writer.write_batch(batch)
        name = digest.hexdigest()
        file = partial.replace(folder / f"rows-{name}.arrow")
    finally:
        partial.unlink(missing_ok=True)
    return datasets.Dataset.from_file(str(file)), name
