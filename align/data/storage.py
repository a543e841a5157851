"""Checked rows as Arrow: in memory, or in a file of the datasets cache where they are many."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from align.data.load_report import LoadReport
from align.data.schema import COLUMNS, arrow_schema
from align.system.files import write_json

if TYPE_CHECKING:
    import datasets

__all__ = ["cache_folder", "keep", "read_kept", "store"]

_CHUNK_ROWS = 10_000
_CHUNKS_IN_MEMORY = 10
"""Data of fewer chunks is held in memory, more of them in a file."""


def store(rows: Iterable[tuple[Mapping[str, Any], str]]) -> tuple[datasets.Dataset, str]:
    """Collect rows and their places; return them with their fingerprint.

    Large data goes into a file of the datasets cache as it comes and is mapped into memory from there.
    """
    import datasets
    import pyarrow as pa
    from datasets.table import InMemoryTable

    schema, left, digest = arrow_schema(), iter(rows), hashlib.sha256()

    def batches() -> Iterator[Any]:
        while chunk := [{**row, "place": place} for row, place in islice(left, _CHUNK_ROWS)]:
            batch = pa.RecordBatch.from_pylist(chunk, schema=schema)
            digest.update(batch.select(list(COLUMNS)).serialize())
            yield batch

    made, folder = batches(), cache_folder()
    held = list(islice(made, _CHUNKS_IN_MEMORY if folder is not None else None))
    if folder is None or len(held) < _CHUNKS_IN_MEMORY:
        name = digest.hexdigest()
        table = InMemoryTable(pa.Table.from_batches(held, schema=schema))
        return datasets.Dataset(table, fingerprint=name[:16]), name
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
