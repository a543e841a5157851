"""Names of models that hold on other machines, for model cards and adapters' configurations: no absolute paths."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from align.world.shipped import FOLDER


def portable_name(name: str, folder: Path) -> str:
    """Return the name of a model as a file in ``folder`` should have it.

    ``world/…`` for an embedded model, wherever the package is installed; an absolute path becomes one relative to
    ``folder``; a name on the hub stays.
    """
    place = Path(name).expanduser()
    if not place.is_absolute():
        return name
    if place.parent == FOLDER:
        return f"world/{place.name}"
    return os.path.relpath(os.path.realpath(place), os.path.realpath(folder))


def find_base(name: str, folder: Path) -> str:
    """Return where the model is that :func:`portable_name` named in a file of ``folder``."""
    beside = folder / name
    return os.path.realpath(beside) if name.startswith(".") and beside.is_dir() else name


def short_name(name: str) -> str:
    """Return the name of a model for a sentence: of an absolute path only the last part."""
    place = Path(name).expanduser()
    if not place.is_absolute():
        return name
    return f"world/{place.name}" if place.parent == FOLDER else place.name


_ABSOLUTE = re.compile(r"(?<![\w./:~])~?/(?:[^\s/,:'\"(){}\[\]]+/)+(?=[^\s/])")


def without_places(value: Any) -> Any:
    """Return a text, or all texts in lists and mappings, with the last part of each absolute path alone."""
    if isinstance(value, Mapping):
        return {key: without_places(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_places(item) for item in value]
    return _ABSOLUTE.sub("", value) if isinstance(value, str) else value
