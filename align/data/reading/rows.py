"""Raw rows, each with its place, before any check."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ["RawRow", "rows_in_memory"]


@dataclass(frozen=True)
class RawRow:
    """One row before any check."""

    place: str
    """`file:line`, or `name:row` if there are no lines; counted from 1."""
    value: object
    problem: str = ""
    """Reason that the row cannot be used in any format; "" if there is none."""


def rows_in_memory(rows: Iterable[object], name: str) -> Iterator[RawRow]:
    """Yield rows in memory, with places `name:1`, `name:2` …"""
    for number, value in enumerate(rows, 1):
        yield RawRow(f"{name}:{number}", value)
