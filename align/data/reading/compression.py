"""Files read through gzip, zstd, xz or bz2, recognised by their first bytes, with a guard against archive bombs."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from align.errors import UserError, first_line

__all__ = ["LONGEST", "file_position", "opened"]

_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\x00": "xz", b"BZh": "bz2"}
_FOREIGN = {b"PK\x03\x04": "zip archive", b"7z\xbc\xaf": "7z archive", b"Rar!": "rar archive"}
_BOMB = 2**30
"""Bytes from which on the content must not be `_RATIO` times as large as its file."""
_RATIO = 500
LONGEST = 2**28
"""Bytes of a line or of a JSON document that are held at once: longer ones are no row of text."""


@contextmanager
def opened(path: Path) -> Generator[BinaryIO]:
    """Open a file for reading, decompressed.

    Raises:
        UserError: The file is another kind of archive, is damaged or cut off, or holds absurdly more than its size.
    """
    with path.open("rb") as raw:
        start = raw.read(8)
    for magic, name in _FOREIGN.items():
        if start.startswith(magic):
            if _is_workbook(path):
                raise UserError(f"{path}: the file is an Excel workbook; save its sheet as CSV (UTF-8).")
            raise UserError(f"{path}: the file is a {name}; unpack it, or compress the file alone with gzip or zstd.")
    kind = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)
    try:
        with path.open("rb") as file, _decompressed(file, kind) as stream:
            yield cast(BinaryIO, io.BufferedReader(_Guarded(stream, path, file), 2**20) if kind else stream)
    except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
        raise _damaged(path, error) from error
    except OSError as error:
        if kind is None or error.errno is not None:  # of the disk
            raise
        raise _damaged(path, error) from error


def file_position(stream: BinaryIO) -> int:
    """Return the bytes of the file that have been read for a stream, of an archive those of the archive."""
    raw = getattr(stream, "raw", None)
    return raw.file.tell() if isinstance(raw, _Guarded) else stream.tell()


def _is_workbook(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.startswith("xl/") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: the compressed file is damaged or cut off ({first_line(error)}); copy it again.")


def _decompressed(file: BinaryIO, kind: str | None) -> BinaryIO:
    if kind == "gzip":
        return cast(BinaryIO, gzip.open(file, "rb"))
    if kind == "xz":
        return cast(BinaryIO, lzma.open(file, "rb"))
    if kind == "bz2":
        return cast(BinaryIO, bz2.open(file, "rb"))
    if kind == "zstd":
        import pyarrow as pa

        return cast(BinaryIO, pa.input_stream(file, compression="zstd"))
    return file


class _Guarded(io.RawIOBase):
    """Passes bytes on until they are out of all proportion to the file."""

    def __init__(self, stream: BinaryIO, path: Path, file: BinaryIO) -> None:
        self.stream, self.path, self.file, self.read_bytes = stream, path, file, 0
        self.limit = max(_BOMB, _RATIO * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        data = self.stream.read(len(buffer))
        self.read_bytes += len(data)
        if self.read_bytes > self.limit:
            raise UserError(
                f"{self.path}: the file holds more than {_RATIO} times its own size; it is damaged or made to fill the "
                "memory, so it is not read."
            )
        buffer[: len(data)] = data
        return len(data)
