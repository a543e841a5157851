"""The commands that a person may want after a run, as they can be typed where the run was started."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from align.cli.compare.words import FEW_SHOT
from align.cli.program import program, python
from align.reporting.page import REPORT

__all__ = ["next_steps"]

_OWN = ("run_name", "if_exists", "resume_world_size", "method", "stage")
"""Words of a run that a comparison sets itself."""


def next_steps(folder: Path, method: str, *, answers: bool) -> str:
    """Return them with what they do.

    Args:
        folder: Of the run.
        method: Its name.
        answers: Its policy was trained and answers prompts.
    """
    steps = {shlex.join([python(), "-m", "webbrowser", (folder / REPORT).resolve().as_uri()]): "see its report"}
    if answers:
        steps[shlex.join([*program("chat"), str(folder)])] = "talk to it"
        if (words := _compared(method, sys.argv[1:])) is not None:
            steps[shlex.join([*program("compare"), *words])] = "compare its method with prompting alone"
    return "\n".join(["Next:", *(f"  {meaning}:\n    {command}" for command, meaning in steps.items())])


def _compared(method: str, words: Sequence[str]) -> list[str] | None:
    """Return the words of a comparison on the same data and model; None for several runs, recipes and lists."""
    own = [word.removeprefix("method.") for word in words if word.startswith("method.")]
    if any(word.startswith(("-", "recipe=")) for word in words) or any(set(word) & set(",:") for word in own):
        return None
    shared = [word for word in words if word.partition("=")[0] not in _OWN and not word.startswith("method.")]
    return [f"methods=[{':'.join([method, *own])},{FEW_SHOT}]", *shared]
