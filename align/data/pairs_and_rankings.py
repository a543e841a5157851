"""Rows to examples: the responses of each unit, rankings rebuilt from their pairs, and pairs taken from rankings."""

from __future__ import annotations

import itertools
import random
from bisect import insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal

from align.data.load_report import RowError
from align.data.schema import DRAWN_COLUMNS, Message, Unit, answer_key

__all__ = [
    "Draft",
    "PairsOf",
    "draft",
    "each_turn",
    "group_rows",
    "ranked",
    "ranking_rows",
    "repaired",
    "rows_that_pair",
]

PairsOf = Literal["all", "adjacent", "best_worst", "best_random"]
"""Pairs that pairwise methods learn from a ranking."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """An example before tokenisation, responses best first."""

    prompt: Sequence[Message]
    tools: str | None = None
    responses: list[Message] = field(default_factory=list[Message])
    drawn: list[list[int] | None] = field(default_factory=list["list[int] | None"])
    """Token ids that each response was drawn as by the tokenizer `drawn_with`, if it was drawn."""
    drawn_with: str | None = None
    scores: list[float | None] = field(default_factory=list[float | None])
    comparisons: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """Indices (better, worse) of the responses whose order the data gives."""
    good: list[bool] = field(default_factory=list[bool])
    """Of a judgement, whether each response is good."""
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
    prompt: dict[str, Any] = {"prompt": row["prompt"], "tools": row["tools"]}
    if unit == "prompt":
        return Draft(**prompt, weight=_weight(row))
    if unit == "ranking":
        return _ranking(rows, prompt)
    sides = ("chosen",) if unit == "demonstration" else ("chosen", "rejected")
    if unit == "judgement":
        sides = tuple(side for side in sides if row[side] is not None)
        if not sides:
            raise RowError("chosen and rejected are null", "a judgement needs one of them")
    for side in sides:
        if row[side] is None:
            raise RowError(f"{side} is null", f"a {unit} needs it")
    return Draft(
        **prompt,
        responses=[row[side][0] for side in sides],
        drawn=[row.get(f"{side}_drawn") for side in sides],
        drawn_with=row.get("drawn_with"),
        scores=[row[f"{side}_score"] for side in sides],
        comparisons=[(0, 1)] if unit == "pair" else [],
        good=[side == "chosen" for side in sides] if unit == "judgement" else [],
        margin=row["margin"] if unit == "pair" else None,
        weight=_weight(row),
    )


@dataclass
class _Group:
    """The distinct responses of some rows of one prompt, by :func:`align.data.schema.answer_key`."""

    responses: dict[str, Message] = field(default_factory=dict[str, Message])
    scores: dict[str, float | None] = field(default_factory=dict[str, "float | None"])
    drawn: dict[str, list[int] | None] = field(default_factory=dict[str, "list[int] | None"])
    pairs: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """(better, worse)."""

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> _Group:
        """Merge rows; a response's score is the first one given."""
        group = cls()
        for row in rows:
            keys: list[str] = []
            for side in ("chosen", "rejected"):
                if row[side] is None:
                    continue
                key = answer_key(row[side][0])
                keys.append(key)
                group.responses.setdefault(key, row[side][0])
                if group.scores.get(key) is None:
                    group.scores[key] = row[f"{side}_score"]
                if group.drawn.get(key) is None:
                    group.drawn[key] = row.get(f"{side}_drawn")
            if len(keys) == 2:
                group.pairs.append((keys[0], keys[1]))
        return group

    def comparisons(self, order: Sequence[str], *, closed: bool) -> list[tuple[int, int]]:
        """Return as indices (better, worse) into `order` the pairs that are given or decided by different scores.

        `closed`: and those that follow, a over c from a over b and b over c.
        """
        place = {key: i for i, key in enumerate(order)}
        found = {(place[better], place[worse]) for better, worse in self.pairs}
        for i, j in itertools.combinations(range(len(order)), 2):  # best first: a lower score never precedes
            first, second = self.scores[order[i]], self.scores[order[j]]
            if first is not None and second is not None and first > second:
                found.add((i, j))
        if closed:
            for k, i, j in itertools.product(range(len(order)), repeat=3):
                if (i, k) in found and (k, j) in found:
                    found.add((i, j))
        return sorted(found)


def _ranking(rows: Sequence[Mapping[str, Any]], prompt: Mapping[str, Any]) -> Draft:
    """Merge the pairs of one prompt; the weight is their mean."""
    group = _Group.of(rows)
    if len(group.responses) < 2:
        raise RowError("fewer than two responses", "a ranking needs two")
    order = ranked(group.scores, group.pairs)
    return Draft(
        **prompt,
        responses=[group.responses[key] for key in order],
        drawn=[group.drawn[key] for key in order],
        drawn_with=next((row["drawn_with"] for row in rows if row.get("drawn_with")), None),
        scores=[group.scores[key] for key in order],
        comparisons=group.comparisons(order, closed=all(row["ranking"] is not None for row in rows)),
        margin=rows[0]["margin"] if len(rows) == 1 else None,
        weight=sum(_weight(row) for row in rows) / len(rows),
    )


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


def ranking_rows(responses: Sequence[Any], values: Sequence[float], *, scored: bool = True) -> Iterator[dict[str, Any]]:
    """Yield pairs that hold the ranking of K responses to a prompt; of equal values neither is preferred.

    A response is paired with the first one of the next better value, and one of the best with the first of the next
    worse: with their scores (or, without, by what follows from the pairs) about K rows give all comparisons. Responses
    that are all tied give no pair.

    Args:
        responses: Texts or messages, as a row has them.
        values: Larger is better.
        scored: The values are scores, which the rows keep; False: only their order counts, and every response is
            paired with all of the next level, so that ties are kept.
    """
    levels: dict[float, list[Any]] = {}
    for value, response in sorted(zip(values, responses, strict=True), key=lambda item: -item[0]):
        levels.setdefault(value, []).append(response)
    for place, ((high, better), (low, worse)) in enumerate(itertools.pairwise(levels.items())):
        if scored:
            pairs = [(first, worse[0]) for first in better] if place == 0 else [(better[0], worse[0])]
            pairs += [(better[0], second) for second in worse[1:]]
        else:
            pairs = list(itertools.product(better, worse))
        for chosen, rejected in pairs:
            scores = {"chosen_score": high, "rejected_score": low} if scored else {}
            yield {"chosen": chosen, "rejected": rejected, **scores}


def rows_that_pair(
    rankings: Sequence[str | None],
    prompt_ids: Sequence[str],
    has_chosen: Sequence[bool],
    has_rejected: Sequence[bool],
    *,
    join_answers: bool = True,
) -> list[list[int]]:
    """Return the rows that :func:`repaired` takes together, in the order of their first ones.

    These are the rows of one ranking, and, if asked, the rows of one prompt that have a good or a bad answer alone.
    """
    groups: dict[object, list[int]] = {}
    columns = zip(rankings, prompt_ids, has_chosen, has_rejected, strict=True)
    for index, (ranking, prompt_id, chosen, rejected) in enumerate(columns):
        alone = (prompt_id,) if join_answers and chosen != rejected else index
        groups.setdefault(alone if ranking is None else ranking, []).append(index)
    return list(groups.values())


def repaired(rows: Sequence[dict[str, Any]], pairs: PairsOf, seed: int) -> Iterator[dict[str, Any]]:
    """Replace the rows of a group by the pairs that pairwise methods learn, which together weigh one prompt.

    `all` comparisons, `adjacent` responses, the best with the worst, or the best with a random worse one (the same for
    the same seed and prompt). A row that is a pair of its own stays, and so do good or bad answers without the other.
    """
    group = _Group.of(rows)
    if rows[0]["ranking"] is None:
        if len(rows) == 1:
            yield rows[0]
            return
        sides = [[answer_key(row[side][0]) for row in rows if row[side]] for side in ("chosen", "rejected")]
        group.pairs += [(good, bad) for good, bad in itertools.product(*sides) if good != bad]
        if not group.pairs:
            yield from rows
            return
    try:
        order = ranked(group.scores, group.pairs)
    except RowError:  # they contradict each other
        yield from rows
        return
    generator = random.Random(f"{seed} {rows[0]['prompt_id']}")
    wanted = _wanted(group.comparisons(order, closed=True), pairs, generator)
    weight = sum(_weight(row) for row in rows) / len(rows) / max(1, len(wanted))
    for i, j in wanted:
        sides = {"chosen": order[i], "rejected": order[j]}
        yield {
            **rows[0],
            **{side: [group.responses[key]] for side, key in sides.items()},
            **{f"{side}_score": group.scores[key] for side, key in sides.items()},
            **{f"{side}_drawn": group.drawn[key] for side, key in sides.items()},
            "margin": None,
            "weight": weight,
        }


def _wanted(
    comparisons: Sequence[tuple[int, int]], pairs: PairsOf, generator: random.Random
) -> Sequence[tuple[int, int]]:
    if pairs == "all" or not comparisons:
        return comparisons
    worse_than = {i: [worse for better, worse in comparisons if better == i] for i, _ in comparisons}
    if pairs == "adjacent":  # nothing lies between the two
        return [(i, j) for i, j in comparisons if not any(j in worse_than.get(k, ()) for k in worse_than[i])]
    best = min(worse_than)
    return [(best, max(worse_than[best]) if pairs == "best_worst" else generator.choice(worse_than[best]))]


def each_turn(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Make a demonstration of every assistant's turn of a conversation that is learned, each after all turns before."""
    for i, message in enumerate(row["prompt"]):
        if message["role"] == "assistant" and i and message.get("weight") is None:
            extra = dict.fromkeys(("rejected", "rejected_score", "chosen_score", "margin", *DRAWN_COLUMNS))
            yield {**row, **extra, "prompt": row["prompt"][:i], "chosen": [message]}
    yield row


def _weight(row: Mapping[str, Any]) -> float:
    return 1.0 if row["weight"] is None else row["weight"]
