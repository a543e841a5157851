"""Files and folders that are whole or not there.

Each is written beside its place under a hidden name, flushed to disk, and renamed. A process killed at any moment
leaves the old one or the new one; of a folder that is replaced at worst the old one under its hidden name and the new
one under its own.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from align.errors import UserError, first_line
from align.system.redaction import redact_strings, redact_text

_PARTIAL, _OLD = ".partial-", ".old-"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ENDING = 2.0  # seconds in which a process that was killed lets go of its files
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV}


def write_text(path: Path, text: str) -> None:
    """Write a text file, secrets redacted; one that is there is replaced."""
    _write(path, redact_text(text))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, secrets redacted; one that is there is replaced."""
    _write(path, json.dumps(redact_strings(value), indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, kind: type = object) -> Any:
    """Read a JSON file; None if it does not exist.

    Raises:
        UserError: It is damaged: no JSON, or its content is not of this kind.
    """
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({first_line(error)}); bring it back from a copy.") from error
    if not isinstance(found, kind):
        raise UserError(f"{path} is damaged (no {kind.__name__}); bring it back from a copy.")
    return found


@contextmanager
def new_file(path: Path) -> Generator[Path]:
    """Yield a file to write; it replaces ``path`` when the block ends without an exception."""
    partial = partial_of(path)
    try:
        yield partial
        publish_file(partial, path)
    except Exception:
        with suppress(OSError):
            partial.unlink()
        raise


@contextmanager
def new_folder(folder: Path) -> Generator[Path]:
    """Yield an empty folder to fill; it replaces ``folder`` when the block ends without an exception."""
    partial = partial_of(folder)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        _flush_tree(partial)
    except Exception:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    with _set_aside(folder):  # in between there is only the old one under its hidden name
        _rename(partial, folder)


@contextmanager
def held(folder: Path, remedy: str) -> Generator[int]:
    """Hold a folder for this process, and those that inherit the descriptor it yields, inside the block.

    Raises:
        UserError: Another process has it (the sentence ends with ``remedy``), or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = folder / ".lock"
        lock.touch()
        file = lock.open()  # not to write, or the disk could not be made read-only meanwhile
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}).") from error
    with file:
        if holder := _holder(lock, file):
            raise UserError(f"{folder} is in use by {holder}; {remedy}.")
        with suppress(OSError):  # a full disk
            lock.write_text(f"process {os.getpid()}", encoding="utf-8")
        yield file.fileno()


def _holder(lock: Path, file: IO[str]) -> str | None:
    """Take a lock; returns who has it, where it cannot be taken."""
    until = time.monotonic() + _ENDING
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            written = file.read()
            if holder := _living(lock, written):
                return holder
            if time.monotonic() > until:
                return f"{written}, which has ended, or a process on another machine"
            time.sleep(0.05)
        except OSError:
            return None  # a file system without locks
        else:
            return None


def _living(lock: Path, written: str) -> str | None:
    """Return who holds a lock: the process that wrote its number, or those that have inherited it and outlived that."""
    import psutil  # needed in this case alone

    number = int(written.removeprefix("process ") or 0)
    if psutil.pid_exists(number):
        return written
    heirs: list[int] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # ended meanwhile, or of another user
            if any(Path(file.path) == lock.resolve() for file in process.open_files()):
                heirs.append(process.pid)
    heirs = [pid for pid in heirs if pid != os.getpid()]
    if not heirs:
        return None
    several = "processes" if len(heirs) > 1 else "process"
    return f"{several} {', '.join(map(str, heirs))}, which {written} began before it ended"


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
    """Delete the hidden files and folders in ``folder`` that a killed process left there."""
    for left in (*folder.glob(f"{_PARTIAL}*"), *folder.glob(f"{_OLD}*")):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()


def disk_fault(error: BaseException) -> str | None:
    """Return ``FILE: No space left on device`` for an error of a disk that is full, gone, or not to be written.

    None for other errors. Those of libraries in Rust (safetensors, tokenizers) have the system's number in their text.
    """
    number, place = None, None
    if isinstance(error, OSError):
        number, place = error.errno, error.filename
    elif found := re.search(r"\(os error (\d+)\)", str(error)):
        number = int(found[1])
    if number not in _FULL | _GONE:
        return None
    return f"{place}: {os.strerror(number)}" if place else os.strerror(number)


@contextmanager
def disk_faults(what: str, remedy: str) -> Generator[None]:
    """Raise a `UserError` that names the place and the fault where the block finds the disk full or gone.

    Args:
        what: What cannot be done then, as "the run in FOLDER cannot be written".
        remedy: Beside free space.
    """
    try:
        yield
    except Exception as error:
        fault = disk_fault(error)
        if fault is None:
            raise
        raise UserError(f"{what} ({fault}); free space or {remedy}.") from error


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


def _write(path: Path, text: str) -> None:
    with new_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


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
