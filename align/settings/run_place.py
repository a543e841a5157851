"""The folder of a run, as a command names it."""

from __future__ import annotations

import re
from pathlib import Path

from align.errors import UserError

__all__ = ["check_output_root", "check_run_name"]


def check_run_name(name: str) -> None:
    """Raise `UserError` for a name that is not that of one folder."""
    if not name.isprintable():
        raise UserError(f"run_name has control characters, {name!a}: use printable ones only.")
    if not name.strip() or name in (".", "..") or re.search(r"[/\\]", name):
        raise UserError(f"run_name={name!r} is not the name of one folder: use output_root for the place.")
    if len(name.encode()) > 200:
        raise UserError(f"run_name is longer than 200 bytes: {name[:40]!r}….")


def check_output_root(root: str, run_name: str) -> None:
    """Raise `UserError` for a place from which the folder of the run could end up elsewhere."""
    if not root.isprintable():
        raise UserError(f"output_root has control characters, {root!a}: use printable ones only.")
    path = Path(root)
    if not root or ".." in path.parts:
        raise UserError(f"output_root={root!r} must be a folder named without '..'.")
    whole = path / run_name
    for part in (whole, *whole.parents):
        if part.is_symlink():
            raise UserError(f"{part} is a symbolic link: set output_root to {part.resolve()} itself or elsewhere.")
