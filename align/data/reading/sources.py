"""From the name of a source to its rows: files, patterns of files, folders, embedded data and data sets on the hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from glob import glob, has_magic
from pathlib import Path

from align.data.reading.rows import Block
from align.data.reading.tables import read_arrow, read_hub, read_parquet, read_saved
from align.data.reading.text import read_csv, read_json
from align.errors import UserError, did_you_mean

__all__ = ["WORLD", "files_of", "matching", "read_blocks"]

WORLD = {
    "world": "pairs.jsonl",
    "world/heldout": "heldout.jsonl",
    "world/demonstrations": "demonstrations.jsonl",
    "world/prompts": "prompts.jsonl",
}
"""Name of embedded data → asset."""

_READERS = {
    ".jsonl": read_json,
    ".ndjson": read_json,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
}
_COMPRESSED = (".gz", ".zst", ".zstd", ".xz", ".bz2")
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_SPLIT_NAME = re.compile(r"(train|test|validation|valid|val|dev|eval|heldout)(?![a-z])", re.IGNORECASE)


def read_blocks(
    source: str | Path, split: str, *, subset: str | None = None, revision: str | None = None
) -> Iterator[Block]:
    """Yield blocks of the rows of a file, a pattern (``part-*.jsonl``), a folder, an embedded name or a hub name.

    `split` applies to a folder or hub data set; a single file has none. `subset` and `revision` are the hub's.
    """
    name, path = str(source), Path(source).expanduser()
    if files := files_of(source, split):
        return (block for file in files for block in _read_file(file))
    if path.is_dir():
        return read_saved(path, split)
    if _reader(path) or not _HUB_NAME.fullmatch(name) or name.startswith("world/"):
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(
            f"data {name!r}: there is no such file or folder; give a path, a hub name or one of "
            f"{', '.join(WORLD)}.{did_you_mean(path.name, siblings) or did_you_mean(name, WORLD)}"
        )
    return read_hub(name, split, subset=subset, revision=revision)


def files_of(source: str | Path, split: str) -> list[Path]:
    """Return the files of a source, in the order in which they are read; none for what no files of rows stand for."""
    name, path = str(source), Path(source).expanduser()
    if name in WORLD:
        from align.world import asset

        return [Path(asset(WORLD[name]))]
    if path.is_dir():
        is_saved = (path / "state.json").exists() or (path / "dataset_dict.json").exists()
        return [] if is_saved else _of_folder(path, split)
    if path.exists():
        return [path]
    files = matching(name)
    if has_magic(name) and not files:
        raise UserError(f"data {name!r}: no file fits this pattern.")
    return files


def matching(pattern: str) -> list[Path]:
    """Return the files that a pattern such as ``part-*.jsonl`` means, in order; none for what is no pattern."""
    found = glob(str(Path(pattern).expanduser()), recursive=True) if has_magic(pattern) else []  # noqa: PTH207
    return sorted(Path(file) for file in found)


def _reader(path: Path) -> Callable[[Path], Iterator[Block]] | None:
    name = path.name.lower()
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    return next((reader for suffix, reader in _READERS.items() if name.endswith(suffix)), None)


def _read_file(path: Path) -> Iterator[Block]:
    reader = _reader(path)
    if reader is None:
        raise UserError(
            f"{path}: data files end in {', '.join(_READERS)}, compressed ones in {', '.join(_COMPRESSED)} after it; "
            "convert or rename the file."
        )
    return reader(path)


def _has_rows(file: Path, folder: Path) -> bool:
    """Return whether a file of a folder is data: not one about data, as the hub and LLaMA-Factory have, nor hidden."""
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return not hidden and file.name not in ("dataset_infos.json", "dataset_info.json")


def _of_folder(path: Path, split: str) -> list[Path]:
    files = sorted(file for file in path.rglob("*") if file.is_file() and _reader(file) and _has_rows(file, path))
    by_split: dict[str, list[Path]] = {}
    for file in files:
        names = map(_SPLIT_NAME.match, reversed(file.relative_to(path).parts))
        named = next(filter(None, names), None)
        by_split.setdefault(named[1].lower() if named else "train", []).append(file)
    if split not in by_split:
        found = ", ".join(sorted(by_split)) or f"no file that ends in {', '.join(_READERS)}"
        raise UserError(f"{path}: the folder has no split {split!r} (found: {found}); choose one with data.split=.")
    return by_split[split]
