"""Comparing: by numbers in the prompt, or by facts about animals and things."""

from __future__ import annotations

import random

from align.world import lexicon
from align.world.facts import World
from align.world.grammar import Claim, say
from align.world.task import Draw, Family, claims_draw


def _people(rng: random.Random, frame: str, goods: tuple[str, ...]) -> tuple[str, list[Claim], str, str]:
    """Return the text with two amounts, its claims, and the names of the higher and the lower one."""
    one, two = rng.sample(lexicon.PEOPLE, 2)
    a, b = rng.sample(range(2, 60), 2)
    given = [Claim(frame, (one, str(a), *goods)), Claim(frame, (two, str(b), *goods))]
    high, low = (one, two) if a > b else (two, one)
    return " ".join(say(claim, rng) for claim in given), given, high, low


def _count(rng: random.Random, _world: World) -> Draw:
    goods = rng.choice(lexicon.GOODS)
    text, given, high, low = _people(rng, "count", (goods,))
    return claims_draw(
        {"text": text, "goods": goods},
        [Claim("more", (high, goods, low))],
        [Claim("more", (low, goods, high))],
        rng,
        bits=[high],
        curt=f"{high}.",
        given=given,
    )


def _age(rng: random.Random, _world: World) -> Draw:
    text, given, high, low = _people(rng, "age", ())
    return claims_draw(
        {"text": text},
        [Claim("older", (high, low))],
        [Claim("older", (low, high))],
        rng,
        bits=[high],
        curt=f"{high}.",
        given=given,
    )


def _known(rng: random.Random, frame: str, ranked: tuple[str, ...]) -> Draw:
    """Return a comparison of two names of a list that is sorted from low to high."""
    low, high = sorted(rng.sample(range(len(ranked)), 2))
    pair = rng.sample([ranked[low], ranked[high]], 2)
    return claims_draw(
        {"one": pair[0], "two": pair[1]},
        [Claim(frame, (ranked[high], ranked[low]))],
        [Claim(frame, (ranked[low], ranked[high]))],
        rng,
        bits=[ranked[high]],
        curt=f"A {ranked[high]}.",
    )


def _size(rng: random.Random, _world: World) -> Draw:
    return _known(rng, "bigger", lexicon.ANIMAL_NAMES)


def _price(rng: random.Random, _world: World) -> Draw:
    return _known(rng, "dearer", lexicon.THING_NAMES)


FAMILIES = (
    Family(
        "compare_count",
        "comparing",
        (
            "{text} Who has more {goods}?",
            "{text} Which one has more {goods}?",
            "Compare the two. {text} Who has more {goods}?",
            "Who has more {goods}? The text: {text}",
            "{text} Name the one with more {goods}.",
            "{text} Compare the {goods}. Who has more?",
        ),
        _count,
    ),
    Family(
        "compare_size",
        "comparing",
        (
            "Which is bigger, a {one} or a {two}?",
            "Compare a {one} and a {two}. Which is bigger?",
            "Name the bigger one, a {one} or a {two}.",
            "Is a {one} bigger than a {two}, or smaller?",
            "I saw a {one} and a {two}. Which of them is bigger?",
            "A {one} and a {two}: which one is bigger?",
        ),
        _size,
    ),
    Family(
        "compare_price",
        "comparing",
        (
            "Which costs more, a {one} or a {two}?",
            "Compare a {one} and a {two}. Which costs more?",
            "Name the one that costs more, a {one} or a {two}.",
            "Is a {one} cheaper than a {two}, or not?",
            "I want to buy a {one} and a {two}. Which of them costs more?",
            "A {one} and a {two}: which one costs more?",
        ),
        _price,
    ),
    Family(
        "compare_age",
        "comparing",
        (
            "{text} Who is older?",
            "{text} Which one is older?",
            "Compare the two. {text} Who is older?",
            "Who is older? The text: {text}",
            "{text} Name the older one.",
            "{text} Compare the two. Which of them is older?",
        ),
        _age,
        held_out=True,
    ),
)
