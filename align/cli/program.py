"""How this program was started, for commands that a person can type in the same place."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

__all__ = ["program", "python"]


def program(command: str | None = None) -> list[str]:
    """Return the words that start this program again, or another `command` of it."""
    started = Path(sys.argv[0])
    if started.suffix != ".py":
        begin = ["align"]
    elif started.name == "__main__.py":
        begin = [python(), "-m", "align"]
    else:
        return [python(), str(started if command is None else started.with_name(f"{command}.py"))]
    return begin if command is None else [*begin, command]


def python() -> str:
    """Return the interpreter, by the shortest name that finds it."""
    own, found = Path(sys.executable), shutil.which("python")
    if found is not None and Path(found) == own:
        return "python"
    return str(own.relative_to(Path.cwd())) if own.is_relative_to(Path.cwd()) else str(own)
