"""Identities: nested plain values that two runs must share, the names of their differences, and hashes of contents.

What is too long to be shown stands in an identity as its hash, and a difference of it is only named.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from align.errors import UserError

__all__ = ["Identity", "content_hash", "differences", "hashed", "named", "require_same", "sha256"]

_HASH = "sha256:"
_SET = "set"  # stands for a group of values where the other side has one value or none
_SHOWN = 8  # differences that a message names


@dataclass(frozen=True)
class Identity:
    """A run as a resumed one must find it again; values are JSON."""

    learnt: Mapping[str, Any]
    """All that decides what is learnt: with another value the run is not resumed."""
    computed: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """All that decides rounding only (versions, device, micro-batches): another value is said."""


def hashed(value: Any) -> str:
    """Return the hash of bytes, or of a JSON value, as an identity holds it."""
    data = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode()
    return _HASH + hashlib.sha256(data).hexdigest()


def content_hash(path: Path) -> str:
    """Return the hash of a file's bytes, or of the names and bytes of all files below a folder but hidden ones."""
    if path.is_file():
        return _HASH + sha256(path)
    files = {str(file.relative_to(path)): file for file in path.rglob("*") if file.is_file()}
    shown = sorted(name for name in files if not any(part.startswith(".") for part in Path(name).parts))
    return hashed([[name, sha256(files[name])] for name in shown])


def sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def differences(
    saved: Mapping[str, Any],
    ours: Mapping[str, Any],
    follows: Mapping[str, tuple[str, ...]] | None = None,
    *,
    places: tuple[str, str] = ("in the run", "now"),
) -> list[str]:
    """Return a clause for each value that differs, ``adapter.r is 4 in the run and 8 now``.

    Args:
        saved: Of the earlier run.
        ours: Of this one.
        follows: Key → beginnings of other keys; it is not named where one of these differs, which explains it.
        places: Where the one and where the other is.
    """
    before, now = _flat(saved), _flat(ours)
    changed = [key for key in {**before, **now} if _value(before, key) != _value(now, key)]
    clauses: list[str] = []
    for key in changed:
        causes = [cause for name, starts in (follows or {}).items() if key.startswith(name) for cause in starts]
        explained = any(other != key and other.startswith(tuple(causes)) for other in changed)
        if not explained and not any(key.startswith(f"{other}.") for other in changed):
            clauses.append(_clause(key, _value(before, key), _value(now, key), places))
    return clauses


def named(found: list[str]) -> str:
    """The first of some `differences`, and how many more there are."""
    more = f"; {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{'; '.join(found[:_SHOWN])}{more}"


def require_same(what: Path, found: list[str], accepted_by: Mapping[str, str] | None = None) -> None:
    """Refuse to go on with what an earlier run left, if there are `differences`.

    Args:
        what: The run, or the file.
        found: The differences.
        accepted_by: Key → the setting with which another value of it is accepted.

    Raises:
        UserError: There are; the message has the first of them, and what to do.
    """
    if found:
        starts = (accepted_by or {}).items()
        settings = [f"{setting} for {key}" for key, setting in starts if any(c.startswith(key) for c in found)]
        remedies = ", ".join(["Give what it began with", *settings])
        raise UserError(f"{what} cannot be resumed: {named(found)}. {remedies}, or if_exists=new.")


def _value(flat: Mapping[str, Any], key: str) -> Any:
    """Return the value under a key, `_SET` for a group of values, None where there is nothing."""
    return flat.get(key, _SET if any(other.startswith(f"{key}.") for other in flat) else None)


def _clause(key: str, before: Any, now: Any, places: tuple[str, str]) -> str:
    if _is_hash(before) and _is_hash(now):
        return f"{key} is not the same"
    return f"{key} is {_shown(before)} {places[0]} and {_shown(now)} {places[1]}"


def _shown(value: Any) -> str:
    if value is None or _is_hash(value):
        return "not set" if value is None else "set"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(_HASH)


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` → ``{"a.b": 1}``, with values as they are after writing and reading."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        inner = isinstance(item, Mapping)
        flat |= _flat(item, f"{prefix}{key}.") if inner else {f"{prefix}{key}": json.loads(json.dumps(item))}
    return flat
