"""A file of JSON lines that only grows."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from align.errors import UserError, first_line

__all__ = ["Lines"]


class Lines:
    """The lines of a file; the rest of a last one, of a process killed while it wrote, is cut off."""

    def __init__(self, file: Path, read: Callable[[Mapping[str, Any]], object] = lambda _: None) -> None:
        """Read the file, or make it.

        Args:
            file: JSON lines.
            read: Called with each row; fails for one that is not as it should be.

        Raises:
            UserError: A line is not a JSON object, or ``read`` fails.
        """
        self.file = file
        self.rows: list[dict[str, Any]] = []
        with file.open("a+b") as stream:
            stream.seek(0)
            whole, _, rest = stream.read().rpartition(b"\n")
            if rest and _object(rest) is not None:  # whole: an editor took its end away
                stream.write(b"\n")
                whole = b"\n".join((whole, rest)) if whole else rest
            else:
                stream.truncate(len(whole) + 1 if whole else 0)
        for number, line in enumerate(whole.split(b"\n") if whole else (), 1):
            row = _object(line)
            try:
                if row is None:
                    raise ValueError("it is no JSON object")
                read(row)
            except (KeyError, TypeError, ValueError) as error:
                reason = f"it has no {error}" if isinstance(error, KeyError) else first_line(error)
                raise UserError(
                    f"{file}:{number} was changed from outside ({reason}); correct or remove it."
                ) from error
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


def _object(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object of a line, None where it is none."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
