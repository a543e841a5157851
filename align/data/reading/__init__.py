"""Raw rows from files, folders and the hub, each with its place."""

from __future__ import annotations

from align.data.reading.rows import RawRow, rows_in_memory
from align.data.reading.sources import WORLD, matching, read_rows

__all__ = ["WORLD", "RawRow", "matching", "read_rows", "rows_in_memory"]
