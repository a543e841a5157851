"""Files and folders that are whole or not there.

Each is written beside its place under a hidden name, flushed to disk, and renamed. A process killed at any moment
leaves the old one or the new one; of a folder that is replaced at worst the old one under its hidden name and the new
one under its own.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PARTIAL, _OLD = ".partial-", ".old-"


def write_text(path: Path, text: str) -> None:
    """Write a text file; one that is there is replaced."""
    with new_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file; one that is there is replaced."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; None if it does not exist."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


@contextmanager
def new_file(path: Path) -> Generator[Path]:
    """Yield a file to write; it replaces ``path`` when the block ends without an exception."""
    partial = partial_of(path)
    yield partial
    publish_file(partial, path)


@contextmanager
def new_folder(folder: Path) -> Generator[Path]:
    """Yield an empty folder to fill; it replaces ``folder`` when the block ends without an exception."""
    partial = partial_of(folder)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    _flush_tree(partial)
    with _set_aside(folder):  # in between there is only the old one under its hidden name
        _rename(partial, folder)


def partial_of(path: Path) -> Path:
    """The hidden place beside ``path`` where it is written first."""
    return path.with_name(f"{_PARTIAL}{path.name}")


def is_partial(path: Path) -> bool:
    """Whether a path is what a process that was killed had begun to write."""
    return path.name.startswith(_PARTIAL)


def publish_file(partial: Path, path: Path) -> None:
    """Flush a file to disk and let it replace ``path``."""
    _flush(partial)
    partial.replace(path)


def publish_folder(partial: Path, folder: Path) -> None:
    """Flush everything in ``partial`` to disk and rename it to ``folder``, which does not exist."""
    _flush_tree(partial)
    _rename(partial, folder)


def remove_folder(folder: Path) -> None:
    """Delete a folder, if it is there; renamed first, so that none is ever found half deleted."""
    with _set_aside(folder):
        pass


def remove_leftovers(folder: Path) -> None:
    """Delete the hidden folders in ``folder`` that a killed process left there."""
    for left in (*folder.glob(f"{_PARTIAL}*"), *folder.glob(f"{_OLD}*")):
        shutil.rmtree(left)


@contextmanager
def _set_aside(folder: Path) -> Generator[None]:
    """Give a folder, if it is there, its hidden name inside the block, and delete it after."""
    old = folder.with_name(f"{_OLD}{folder.name}")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    yield
    if old.exists():
        shutil.rmtree(old)


def _rename(partial: Path, folder: Path) -> None:
    partial.rename(folder)
    _flush(folder.parent)


def _flush_tree(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        _flush(path)


def _flush(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
