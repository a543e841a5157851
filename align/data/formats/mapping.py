"""Columns under other names: the mapping that a user gives, and the one that a refusal proposes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain, islice
from typing import Any, cast

from align.data.formats.base import Sample
from align.data.messages import kind
from align.data.reading import RawRow
from align.errors import UserError, did_you_mean

__all__ = ["mapped", "proposal", "shown_columns"]

_SAMPLE_ROWS = 1000
_PATH = re.compile(r"[^.\[\]]+|\[-?\d+\]")
_PROMPTS = (
    "prompt",
    "question",
    "instruction",
    "problem",
    "query",
    "request",
    "task",
    "input",
    "context",
    "history",
    "text",
)
_ANSWERS = ("answer", "response", "completion", "output", "solution", "reply", "target", "summary")
_GOOD = ("chosen", "accepted", "preferred", "better", "best", "good", "winner", "winning", "positive", "correct")
_BAD = ("rejected", "worse", "worst", "bad", "loser", "losing", "negative", "incorrect", "dispreferred")
_LABELS = ("better", "winner", "preferred", "preference", "label", "choice", "choose", "vote", "verdict", "best")
_PAIRS_OF_MARKS = (("1", "2"), ("0", "1"), ("a", "b"), ("A", "B"), ("left", "right"), ("first", "second"))
_SHOWN = 8  # columns in a message


def mapped(rows: Iterator[RawRow], columns: Mapping[str, str | None], source: str) -> Iterator[RawRow]:
    """Yield the rows with columns under the names of the pairwise format.

    Args:
        rows: As they are in the source.
        columns: New name → column, or a path into one: ``conversations[0].value``; None: no change.
        source: For messages.

    Raises:
        UserError: No row has such a column, or another has the new name already.
    """
    paths = {new: old for new, old in columns.items() if old is not None and old != new}
    head = list(islice(rows, _SAMPLE_ROWS if paths else 0))
    found = {str(name) for row in head if isinstance(row.value, Mapping) for name in cast(Mapping[str, Any], row.value)}
    steps: dict[str, tuple[str | int, ...]] = {}
    for new, old in paths.items():
        steps[new] = (old,) if old in found else _steps(old)
        root = str(steps[new][0])
        if root not in found:
            raise UserError(
                f"{source}: data.columns.{new}={old}, but no row has the column {root!r}; there are "
                f"{', '.join(sorted(found))}.{did_you_mean(root, found)}"
            )
        if new in found and new not in {str(path[0]) for path in steps.values()} and new not in paths.values():
            raise UserError(
                f"{source}: data.columns.{new}={old}, but there is a column {new!r} as well; remove or rename one."
            )
    roots = {path[0] for path in steps.values()}
    for row in chain(head, rows):
        if paths and isinstance(row.value, Mapping):
            value = cast(Mapping[str, Any], row.value)
            named = {new: cell for new, path in steps.items() if (cell := _at(value, path)) is not _MISSING}
            row = replace(row, value={name: cell for name, cell in value.items() if name not in roots} | named)
        yield row


_MISSING = object()


def _steps(path: str) -> tuple[str | int, ...]:
    """Return the names and places of a path: ``a.b[0]`` is a, b, 0."""
    parts = _PATH.findall(path)
    return tuple(int(part[1:-1]) if part.startswith("[") else part for part in parts) or (path,)


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        if isinstance(step, int):
            if not isinstance(value, list) or not -len(value) <= step < len(value):
                return _MISSING
            value = value[step]
        elif isinstance(value, Mapping) and step in value:
            value = value[step]
        else:
            return _MISSING
    return value


def shown_columns(sample: Sample) -> str:
    """Return the columns with their types and an example of each, for a message of one line."""
    shown = [_shown(sample, name) for name in sorted(sample.columns)]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more


def _shown(sample: Sample, name: str) -> str:
    values = sample.values(name)
    if not values:
        return f"{name} (null)"
    text = " ".join(str(values[0]).split())
    return f"{name} ({kind(values[0])}: {text[:24] + '…' if len(text) > 24 else text})"


def proposal(sample: Sample) -> str:
    """Return ``data.columns='{…}'`` with what the columns probably are; COLUMN where nothing looks like it."""
    texts = [name for name in sorted(sample.columns) if sample.mostly(name, _is_content)]
    prompt = _named(texts, _PROMPTS)
    chosen, rejected = _named(texts, _GOOD), _named(texts, _BAD)
    two = None if chosen and rejected else _two(texts)
    lists = [name for name in sorted(sample.columns) if sample.mostly(name, lambda value: kind(value) == "list")]
    if two:
        rest = [name for name in sorted(sample.columns) if name not in two]
        label = _named([name for name in rest if name != prompt], _LABELS)
        found = {"prompt": prompt or _longest(sample, texts, two), "response_1": two[0], "response_2": two[1]}
        found["better"] = label
    elif chosen or rejected:
        others = {name for name in (chosen, rejected) if name}
        prompt = prompt if prompt not in others else None
        found = {"prompt": prompt or _longest(sample, texts, others), "chosen": chosen, "rejected": rejected}
    elif len(lists) > 1:
        scores = _named(lists, ("score", "rating", "reward", "rank"))
        answers = next((name for name in lists if name != scores), None)
        key = "ranks" if scores and "rank" in scores.lower() else "scores"
        found = {"prompt": prompt, "responses": answers, key: scores}
    else:
        answer = _named([name for name in texts if name != prompt], _ANSWERS)
        found = {"prompt": prompt or _longest(sample, texts, {answer} if answer else set()), "chosen": answer}
    named = [f"{new}: {old or 'COLUMN'}" for new, old in found.items() if new != old]
    return "data.columns='{" + ", ".join(named) + "}'"


def _is_content(value: object) -> bool:
    return kind(value) in ("text", "messages")


def _named(names: list[str], words: tuple[str, ...]) -> str | None:
    """Return the first name that has one of the words in it, in the order of the words."""
    for word in words:
        for name in names:
            if word in re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()):
                return name
    return None


def _two(names: list[str]) -> tuple[str, str] | None:
    """Return two names that differ in a mark alone, such as answer_a and answer_b."""
    for first, second in _PAIRS_OF_MARKS:
        for name in names:
            stem = re.sub(rf"(?<![A-Za-z]){first}$|(?<=[a-z_-]){first}$", "", name)
            if stem != name and stem + second in names:
                return name, stem + second
    return None


def _longest(sample: Sample, names: list[str], without: Any) -> str | None:
    lengths = {name: sum(len(str(value)) for value in sample.values(name)) for name in names if name not in without}
    return max(lengths, key=lambda name: lengths[name], default=None)
