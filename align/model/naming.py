"""Names of models that hold on other machines, for model cards and adapters' configurations: no absolute paths."""

from __future__ import annotations

import os
import re
from pathlib import Path

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


def portable_text(text: str) -> str:
    """Return a text with each absolute path in it relative to the working folder, for a page that is passed on."""
    return _ABSOLUTE.sub(lambda found: os.path.relpath(found[0]), text)


_ABSOLUTE = re.compile(r"(?<![\w./:~-])/[^\s'\",:;()\[\]{}]+")
