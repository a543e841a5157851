"""Objects in Python files of the user's: ``path/to/file.py:name`` or ``package.module:name``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from align.errors import UserError, fault_of_user, first_line

__all__ = ["OF_USER", "import_named"]

OF_USER = "of_user_"
"""The names of modules made of files begin with it."""


def import_named(place: str, setting: str) -> Any:
    """Import what `place` names; this runs the user's module. ``setting`` begins the messages.

    Raises:
        UserError: It is no such name, or the module cannot be imported.
    """
    where, _, name = place.rpartition(":")
    if not where or not name.isidentifier():
        raise UserError(f"{setting}: {place!r} must be path/to/file.py:name or package.module:name.")
    if where.endswith(".py") and not Path(where).expanduser().is_file():
        raise UserError(f"{setting}: {place!r} cannot be imported: there is no file {where}.")
    try:
        module = _of_file(Path(where).expanduser()) if where.endswith(".py") else importlib.import_module(where)
        return getattr(module, name)
    except (Exception, SystemExit) as error:  # whatever the user's module does
        reason = fault_of_user(error) or first_line(error)
        raise UserError(f"{setting}: {place!r} cannot be imported: {reason}; correct it.") from error


def _of_file(file: Path) -> Any:
    name = f"{OF_USER}{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where a dataclass looks for the names in its annotations
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
