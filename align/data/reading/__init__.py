"""Raw rows from files, folders and the hub, each with its place."""

from __future__ import annotations

from align.data.reading.rows import BLOCK_ROWS, Block, RawRow, Rows, in_blocks, rows_in_memory
from align.data.reading.sources import WORLD, files_of, matching, read_blocks

__all__ = [
    "BLOCK_ROWS",
    "WORLD",
    "Block",
    "RawRow",
    "Rows",
    "files_of",
    "in_blocks",
    "matching",
    "read_blocks",
    "rows_in_memory",
]
