"""Rows to examples: the responses of each unit, and rankings rebuilt from their pairs."""

from __future__ import annotations

import itertools
from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

from align.data.load_report import RowError
from align.data.schema import Message, Unit

__all__ = ["Draft", "draft", "group_rows", "ranked"]


@dataclass(frozen=True, kw_only=True)
class Draft:
    """An example before tokenisation; responses are texts, best first."""

    prompt: Sequence[Message]
    responses: list[str] = field(default_factory=list[str])
    drawn: list[list[int] | None] = field(default_factory=list["list[int] | None"])
    """Token ids that each response was drawn as by the tokenizer `drawn_with`, if it was drawn."""
    drawn_with: str | None = None
    scores: list[float | None] = field(default_factory=list[float | None])
    comparisons: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """Indices (better, worse) of the responses whose order the data gives."""
    margin: float | None = None
    weight: float = 1.0


def group_rows(prompt_ids: Iterable[str], unit: Unit) -> list[list[int]]:
    """Return the rows of each example: one row, or for rankings all rows with the same prompt_id, in order."""
    if unit != "ranking":
        return [[index] for index, _ in enumerate(prompt_ids)]
    groups: dict[str, list[int]] = {}
    for index, prompt_id in enumerate(prompt_ids):
        groups.setdefault(prompt_id, []).append(index)
    return list(groups.values())


def draft(rows: Sequence[Mapping[str, Any]], unit: Unit) -> Draft:
    """Return the example made of `rows` (one, or several of a ranking).

    Raises:
        RowError: The rows do not have what the unit needs.
    """
    row = rows[0]
    if unit == "prompt":
        return Draft(prompt=row["prompt"], weight=_weight(row))
    if unit == "ranking":
        return _ranking(rows)
    sides = ("chosen",) if unit == "demonstration" else ("chosen", "rejected")
    for side in sides:
        if row[side] is None:
            raise RowError(f"{side} is null", f"a {unit} needs it")
    return Draft(
        prompt=row["prompt"],
        responses=[row[side][0]["content"] for side in sides],
        drawn=[row.get(f"{side}_drawn") for side in sides],
        drawn_with=row.get("drawn_with"),
        scores=[row[f"{side}_score"] for side in sides],
        comparisons=[(0, 1)] if unit == "pair" else [],
        margin=row["margin"] if unit == "pair" else None,
        weight=_weight(row),
    )


def _ranking(rows: Sequence[Mapping[str, Any]]) -> Draft:
    """Merge the pairs of one prompt; the weight is their mean, a response's score the first one given."""
    scores: dict[str, float | None] = {}
    drawn: dict[str, list[int] | None] = {}
    pairs: list[tuple[str, str]] = []
    for row in rows:
        texts = {side: row[side][0]["content"] for side in ("chosen", "rejected") if row[side] is not None}
        for side, text in texts.items():
            if scores.get(text) is None:
                scores[text] = row[f"{side}_score"]
            if drawn.get(text) is None:
                drawn[text] = row.get(f"{side}_drawn")
        if len(texts) == 2:
            pairs.append((texts["chosen"], texts["rejected"]))
    if len(scores) < 2:
        raise RowError("fewer than two responses", "a ranking needs two")
    responses = ranked(scores, pairs)
    return Draft(
        prompt=rows[0]["prompt"],
        responses=responses,
        drawn=[drawn[text] for text in responses],
        drawn_with=next((row["drawn_with"] for row in rows if row.get("drawn_with")), None),
        scores=[scores[text] for text in responses],
        comparisons=_comparisons(responses, scores, pairs),
        margin=rows[0]["margin"] if len(rows) == 1 else None,
        weight=sum(_weight(row) for row in rows) / len(rows),
    )


def _comparisons(
    responses: Sequence[str], scores: Mapping[str, float | None], pairs: Iterable[tuple[str, str]]
) -> list[tuple[int, int]]:
    """Return as indices (better, worse) the pairs that were given and those that two different scores decide."""
    place = {text: i for i, text in enumerate(responses)}
    found = {(place[better], place[worse]) for better, worse in pairs}
    for i, j in itertools.combinations(range(len(responses)), 2):  # best first: a lower score never precedes
        first, second = scores[responses[i]], scores[responses[j]]
        if first is not None and second is not None and first > second:
            found.add((i, j))
    return sorted(found)


def ranked(scores: Mapping[str, float | None], pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return the responses best first, in an order consistent with every (better, worse) pair.

    Where the pairs leave the order open, the higher score comes first, then the response that occurs first in `scores`.

    Raises:
        RowError: if the pairs contradict each other.
    """
    rank = {text: (-score if score is not None else float("inf"), i) for i, (text, score) in enumerate(scores.items())}
    sorter = TopologicalSorter[str](dict.fromkeys(scores, ()))
    for better, worse in pairs:
        sorter.add(worse, better)
    try:
        sorter.prepare()
    except CycleError as error:
        raise RowError("pairs of the prompt contradict each other") from error
    order: list[str] = []
    ready: list[str] = []  # best first
    while sorter.is_active():
        for text in sorter.get_ready():
            insort(ready, text, key=rank.__getitem__)
        order.append(ready.pop(0))
        sorter.done(order[-1])
    return order


def _weight(row: Mapping[str, Any]) -> float:
    return 1.0 if row["weight"] is None else row["weight"]
