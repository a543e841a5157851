"""Raw rows, each with its place, before any check; and blocks of them, which one process reads and checks at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

__all__ = ["BLOCK_ROWS", "Block", "RawRow", "Rows", "in_blocks", "rows_in_memory"]

BLOCK_ROWS = 1000


@dataclass(frozen=True)
class RawRow:
    """One row before any check."""

    place: str
    """`file:line`, or `name:row` if there are no lines; counted from 1."""
    value: object
    problem: str = ""
    """Reason that the row cannot be used in any format; "" if there is none."""


class Block(Protocol):
    """Rows that follow each other; every iteration reads them again. Blocks are sent to other processes."""

    @property
    def size(self) -> int:
        """Bytes of the file that it stands for; 0 where that is not known."""
        ...

    def __iter__(self) -> Iterator[RawRow]: ...


@dataclass(frozen=True)
class Rows:
    """A block of rows that have been read."""

    rows: list[RawRow]
    size: int = 0

    def __iter__(self) -> Iterator[RawRow]:
        return iter(self.rows)


def in_blocks(rows: Iterable[RawRow]) -> Iterator[Rows]:
    """Yield rows in blocks of `BLOCK_ROWS`."""
    left = iter(rows)
    while block := list(islice(left, BLOCK_ROWS)):
        yield Rows(block)


def rows_in_memory(rows: Iterable[object], name: str, first: int = 1) -> Iterator[RawRow]:
    """Yield rows in memory, with places `name:1`, `name:2` …"""
    for number, value in enumerate(rows, first):
        yield RawRow(f"{name}:{number}", value)
