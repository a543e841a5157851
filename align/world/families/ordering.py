"""Ordering: numbers, days of the week, animals by size."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from align.world import lexicon
from align.world.facts import World
from align.world.grammar import Claim, join
from align.world.task import Draw, Family, claims_draw


def _order(frame: str, pool: Sequence[str], *, reverse: bool = False) -> Callable[[random.Random, World], Draw]:
    """Return a draw of 3 or 4 entries of a sorted pool, to be put in order."""

    def draw(rng: random.Random, _world: World) -> Draw:
        items = rng.sample(pool, rng.randint(3, 4))
        right = sorted(items, key=pool.index, reverse=reverse)
        if items == right:
            items = right[::-1]
        wrong = [right[1], right[0], *right[2:]]
        curt = join(right)
        return claims_draw(
            {"items": join(items)},
            [Claim(frame, (",".join(right),))],
            [Claim(frame, (",".join(wrong),))],
            rng,
            bits=[",".join(right)],
            curt=curt[0].upper() + curt[1:] + ".",
        )

    return draw


_NUMBERS = tuple(str(number) for number in range(2, 60))

FAMILIES = (
    Family(
        "order_rising",
        "ordering",
        (
            "Put the numbers in order, smallest first: {items}.",
            "Sort the numbers {items}, smallest first.",
            "On the wall are the numbers {items}. Sort them from the smallest to the largest.",
            "Sort the numbers upwards: {items}.",
            "What is the right order, smallest first? The numbers are {items}.",
            "From the smallest to the largest, what is the order of {items}?",
        ),
        _order("rising", _NUMBERS),
    ),
    Family(
        "order_days",
        "ordering",
        (
            "Put the days in order: {items}.",
            "Sort the days {items}.",
            "On the sheet are the days {items}. What is the right order?",
            "In the week, what is the order of {items}?",
            "What is the right order of the days {items}?",
            "The days are {items}. Which one comes first, and then?",
        ),
        _order("days", lexicon.DAYS),
    ),
    Family(
        "order_sizes",
        "ordering",
        (
            "Put the animals in order by size: {items}.",
            "Sort the animals {items} from small to big.",
            "On the sheet are the animals {items}. Sort them by size.",
            "By size, what is the order of {items}?",
            "What is the right order from small to big? The animals are {items}.",
            "From small to big, sort {items}.",
        ),
        _order("sizes", lexicon.ANIMAL_NAMES),
    ),
    Family(
        "order_falling",
        "ordering",
        (
            "Put the numbers in order, largest first: {items}.",
            "Sort the numbers {items}, largest first.",
            "On the wall are the numbers {items}. Sort them from the largest to the smallest.",
            "Sort the numbers downwards: {items}.",
            "What is the right order, largest first? The numbers are {items}.",
            "From the largest to the smallest, what is the order of {items}?",
        ),
        _order("falling", _NUMBERS, reverse=True),
        held_out=True,
    ),
)
