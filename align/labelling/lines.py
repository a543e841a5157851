"""A file of JSON lines that only grows."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from align.errors import UserError

__all__ = ["Lines"]


class Lines:
    """The lines of a file; a last one without an end, of a process killed while it wrote, is cut off."""

    def __init__(self, file: Path) -> None:
        """Read the file, or make it.

        Raises:
            UserError: A line is not a JSON object.
        """
        self.file = file
        self.rows: list[dict[str, Any]] = []
        with file.open("a+b") as stream:
            stream.seek(0)
            whole, _, _ = stream.read().rpartition(b"\n")
            stream.truncate(len(whole) + 1 if whole else 0)
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise UserError(
                    f"{file}:{number} was changed from outside and is no JSON object; correct or remove it."
                )
            self.rows.append(row)

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows; they are on disk when this returns.

        Raises:
            UserError: The file cannot be written.
        """
        try:
            with self.file.open("ab") as stream:
                stream.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise UserError(f"{self.file} cannot be written ({error.strerror}); free space and try again.") from error
        self.rows.extend(map(dict, rows))
