"""Answers to other prompts of the same optimiser step, from which KTO estimates how far the policy has moved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from align.model.batch import Batch

if TYPE_CHECKING:
    from align.method.base import Together

Ids = tuple[int, ...]
Asked = tuple[int, Ids, tuple[Ids, ...], float]
"""Row, prompt, answers, and weight."""


def with_other_answers(parts: Sequence[Batch], together: Together) -> list[Batch]:
    """Give the prompts of each micro-batch the answers to another prompt of the step, whichever rank has it.

    Each row's answers go to one row: the rows are sorted by prompt and shifted by the size of the largest group. Rows
    that meet their own prompt, because it has more than half of the step, are left out. An answer is cut where
    it would make a row longer than any of the step. ``weight_P`` is that of the row whose answers they are; a row that
    weighs nothing is not there.
    """

    def mine() -> list[Asked]:
        return [
            (row, tuple(prompt), tuple(map(tuple, answers)), weight)
            for part in parts
            for row, prompt, answers, weight in zip(
                part.rows, part.prompt_ids, part.response_ids, part["weight_P"].tolist(), strict=True
            )
            if weight
        ]

    everyone = sorted((asked for rank in together(mine) for asked in rank), key=lambda asked: (asked[1], asked[0]))
    longest = max(len(prompt) + max(map(len, answers)) for _, prompt, answers, _ in everyone)
    shift = max(Counter(prompt for _, prompt, *_ in everyone).values())
    given: dict[int, tuple[tuple[Ids, ...], float]] = {}
    for i, (row, prompt, *_) in enumerate(everyone):
        _, other, answers, weight = everyone[(i + shift) % len(everyone)]
        if other != prompt:
            given[row] = tuple(answer[: longest - len(prompt)] for answer in answers), weight
    return [swapped for part in parts if (swapped := _swapped(part, given)).P]


def _swapped(part: Batch, given: dict[int, tuple[tuple[Ids, ...], float]]) -> Batch:
    places = [p for p, row in enumerate(part.rows) if row in given]
    return Batch(
        prompt_ids=tuple(part.prompt_ids[p] for p in places),
        response_ids=tuple(given[part.rows[p]][0] for p in places),
        rows=tuple(part.rows[p] for p in places),
        columns={"weight_P": torch.tensor([given[part.rows[p]][1] for p in places])},
    )
