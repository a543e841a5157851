"""Methods, scorers, data formats and commands by name.

Names come from installed packages' entry points, so that other people's packages join without a change here::

    [project.entry-points."align.methods"]
    mine = "my_package.mine:Mine"

Its own names a checkout reads from ``pyproject.toml``: what pip wrote down at an editable install may be older.
Listing names imports nothing; only `load` imports the one target that was asked for.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal

from align.errors import UserError, did_you_mean, fault_of_user, first_line
from align.system.user_code import import_named

__all__ = ["Group", "choices", "is_own", "load"]

Group = Literal["methods", "scorers", "formats", "commands"]

_PROJECT = "align-rlhf"
_CHECKOUT = Path(__file__).parents[2] / "pyproject.toml"


def choices(group: Group, *, shipped: bool = False) -> list[str]:
    """Return the sorted names registered in `group`, or only those of this project."""
    return sorted(_own(group) if shipped else _registered(group))


def load(group: Group, name: str) -> Any:
    """Import and return the class or function registered as `name` in `group`, or that ``FILE.py:NAME`` names."""
    if is_own(name):
        return import_named(name, group[:-1])
    registered = _registered(group)
    if name not in registered:
        raise UserError(
            f"{name!r} is not one of the {group}: {', '.join(sorted(registered)) or 'none is installed'}."
            + did_you_mean(name, registered)
        )
    entry = registered[name]
    try:
        return entry.load()
    except (Exception, SystemExit) as error:  # whatever another package's module does
        fault = fault_of_user(error)
        if fault is None and not isinstance(error, (ImportError, AttributeError)):
            raise
        reason = fault or first_line(error)
        raise UserError(f"{group[:-1]} {name!r} ({entry.value}) cannot be imported: {reason}.") from error


def is_own(name: str) -> bool:
    """Return whether a name is that of an object in a Python file: ``FILE.py:NAME``."""
    return name.rpartition(":")[0].endswith(".py")


@cache
def _registered(group: Group) -> dict[str, EntryPoint]:
    """Entry points by name; this project's own win over another package's of the same name."""
    found = reversed(list(entry_points(group=f"align.{group}")))
    return {entry.name: entry for entry in found if not _is_ours(entry)} | _own(group)


@cache
def _own(group: Group) -> dict[str, EntryPoint]:
    """This project's entry points: those of the checkout, where this is one, else those installed."""
    project = tomllib.loads(_CHECKOUT.read_text(encoding="utf-8"))["project"] if _CHECKOUT.is_file() else {}
    if project.get("name") != _PROJECT:
        return {entry.name: entry for entry in entry_points(group=f"align.{group}") if _is_ours(entry)}
    named = project["entry-points"].get(f"align.{group}", {})
    return {name: EntryPoint(name, value, f"align.{group}") for name, value in named.items()}


def _is_ours(entry: EntryPoint) -> bool:
    return entry.dist is not None and entry.dist.name == _PROJECT
