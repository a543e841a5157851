"""Rows of tables: Parquet, Arrow, folders of `datasets`, and data sets on the hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from align.data.reading.rows import RawRow, rows_in_memory
from align.errors import UserError, first_line

__all__ = ["read_arrow", "read_hub", "read_parquet", "read_saved"]

_BATCH = 1000


def read_parquet(path: Path) -> Iterator[RawRow]:
    """Yield the rows of a Parquet file, with places `file:row`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        batches = pq.ParquetFile(path).iter_batches(batch_size=_BATCH)
        yield from rows_in_memory((row for batch in batches for row in batch.to_pylist()), path.name)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: is not a readable Parquet file ({first_line(error)}); write it again.") from error


def read_arrow(path: Path) -> Iterator[RawRow]:
    """Yield the rows of an Arrow file, in the format of streams or of files."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
            try:
                batches: Iterable[Any] = pa.ipc.open_stream(source)
            except pa.ArrowInvalid:
                opened = pa.ipc.open_file(source)
                batches = (opened.get_batch(i) for i in range(opened.num_record_batches))
            rows = (row for batch in batches for part in _parts(batch) for row in part.to_pylist())
            yield from rows_in_memory(rows, path.name)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: is not a readable Arrow file ({first_line(error)}); write it again.") from error


def _parts(batch: Any) -> Iterator[Any]:
    return (batch.slice(start, _BATCH) for start in range(0, batch.num_rows, _BATCH))


def read_saved(path: Path, split: str) -> Iterator[RawRow]:
    """Yield the rows of a folder that `datasets` wrote."""
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


def read_hub(name: str, split: str, *, subset: str | None, revision: str | None) -> Iterator[RawRow]:
    """Yield the rows of a data set on the hub."""
    import datasets

    try:
        found = datasets.load_dataset(name, subset, split=split, revision=revision)
    except (OSError, ValueError) as error:
        raise UserError(
            f"data {name!r} is no file and could not be loaded from the hub (split {split!r}): {error}"
        ) from error
    return rows_in_memory(cast(Iterable[object], found), name)
