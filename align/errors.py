"""Errors that are answers to the user: one sentence that names the place and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["ScorerError", "UserError", "did_you_mean", "first_line"]


class UserError(ValueError):
    """A mistake in what the user gave: configuration, data or files.

    The message is one sentence that names the place (key, file and line, row) and the remedy, so that the
    command line can print it alone, without a traceback. Broken invariants of this code are `assert`, never
    a `UserError`.
    """


class ScorerError(RuntimeError):
    """A scorer gave no usable scores; none is ever made up.

    The trainer saves a checkpoint and exits, so that the run can be resumed. The message is one sentence that names the
    address, the reason and the remedy.
    """


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return ``' Did you mean "beta"?'`` for the choice nearest to `word`, or ``''`` where none is near.

    The leading space lets the result be appended to a finished sentence; letter case is ignored.
    """
    by_lower_case = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(word.lower(), by_lower_case, n=1, cutoff=0.6)
    return f' Did you mean "{by_lower_case[near[0]]}"?' if near else ""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text without its full stop; of one without a text its type."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
