"""Rows of tables: Parquet, Arrow, folders of `datasets`, and data sets on the hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from align.data.reading.rows import BLOCK_ROWS, Block, RawRow, in_blocks, rows_in_memory
from align.errors import UserError, first_line

__all__ = ["read_arrow", "read_hub", "read_parquet", "read_saved"]


@dataclass(frozen=True)
class _Table:
    """A block of rows of a table."""

    name: str
    first: int
    """Number of the first row."""
    batch: Any
    """A `pyarrow.RecordBatch`."""
    size: int

    def __iter__(self) -> Iterator[RawRow]:
        return rows_in_memory(self.batch.to_pylist(), self.name, self.first)

    def __reduce__(self) -> Any:  # pyarrow would send all of the table that the batch is a slice of
        import pyarrow as pa

        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.batch.schema) as writer:
            writer.write_batch(self.batch)
        return _sent, (self.name, self.first, sink.getvalue(), self.size)


def _sent(name: str, first: int, stream: Any, size: int) -> _Table:
    import pyarrow as pa

    return _Table(name, first, pa.ipc.open_stream(stream).read_next_batch(), size)


def read_parquet(path: Path) -> Iterator[Block]:
    """Yield the rows of a Parquet file, with places `file:row`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            yield from _tables(file.iter_batches(batch_size=BLOCK_ROWS), path, file.metadata.num_rows)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: is not a readable Parquet file ({first_line(error)}); write it again.") from error


def read_arrow(path: Path) -> Iterator[Block]:
    """Yield the rows of an Arrow file, in the format of streams or of files."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
            try:
                batches: Iterable[Any] = pa.ipc.open_stream(source)
            except pa.ArrowInvalid:
                opened = pa.ipc.open_file(source)
                batches = (opened.get_batch(i) for i in range(opened.num_record_batches))
            yield from _tables((part for batch in batches for part in _parts(batch)), path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: is not a readable Arrow file ({first_line(error)}); write it again.") from error


def _parts(batch: Any) -> Iterator[Any]:
    return (batch.slice(start, BLOCK_ROWS) for start in range(0, batch.num_rows, BLOCK_ROWS))


def _tables(batches: Iterable[Any], path: Path, rows: int | None = None) -> Iterator[_Table]:
    """Yield batches of a file, of which the number of `rows` may be known, as blocks."""
    first, size = 1, path.stat().st_size
    for batch in batches:
        yield _Table(path.name, first, batch, size * batch.num_rows // rows if rows else 0)
        first += batch.num_rows


def read_saved(path: Path, split: str) -> Iterator[Block]:
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
    return in_blocks(rows_in_memory(cast(Iterable[object], found), path.name))


def read_hub(name: str, split: str, *, subset: str | None, revision: str | None) -> Iterator[Block]:
    """Yield the rows of a data set on the hub."""
    import datasets

    try:
        found = datasets.load_dataset(name, subset, split=split, revision=revision)
    except (OSError, ValueError) as error:
        raise UserError(
            f"data {name!r} is no file and could not be loaded from the hub (split {split!r}): {error}"
        ) from error
    return in_blocks(rows_in_memory(cast(Iterable[object], found), name))
