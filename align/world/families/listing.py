"""Listing and filtering: pick the words of a kind, or the things of a person."""

from __future__ import annotations

import random

from align.world import lexicon
from align.world.facts import World
from align.world.grammar import Claim, join, say
from align.world.task import Draw, Family, claims_draw


def _mixed(rng: random.Random) -> tuple[str, list[str], list[str], list[str]]:
    """Return a kind, a shuffled list of words, the words of that kind, and the others."""
    kind, other = rng.sample(list(lexicon.KINDS), 2)
    inside = rng.sample(lexicon.KINDS[kind], rng.randint(2, 3))
    outside = rng.sample(lexicon.KINDS[other], rng.randint(1, 2))
    words = rng.sample([*inside, *outside], len(inside) + len(outside))
    return kind, words, [w for w in words if w in inside], [w for w in words if w in outside]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _kinds(rng: random.Random, _world: World) -> Draw:
    kind, words, inside, outside = _mixed(rng)
    return claims_draw(
        {"kind": kind, "words": join(words)},
        [Claim("kinds", (kind, ",".join(inside)))],
        [Claim("kinds", (kind, ",".join([inside[0], outside[0]])))],
        rng,
        bits=[",".join(inside)],
        curt=_capital(join(inside)) + ".",
    )


def _others(rng: random.Random, _world: World) -> Draw:
    kind, words, inside, outside = _mixed(rng)
    return claims_draw(
        {"kind": kind, "words": join(words)},
        [Claim("others", (kind, ",".join(outside)))],
        [Claim("others", (kind, ",".join(inside)))],
        rng,
        bits=[",".join(outside)],
        curt=_capital(join(outside)) + ".",
    )


def _things(rng: random.Random, _world: World) -> Draw:
    one, two = rng.sample(lexicon.PEOPLE, 2)
    things = rng.sample(lexicon.THING_NAMES, rng.randint(4, 5))
    mine, others = things[:-2], things[-2:]
    given = [Claim("has", (one, thing)) for thing in mine] + [Claim("has", (two, thing)) for thing in others]
    rng.shuffle(given)
    mine = [claim.slots[1] for claim in given if claim.slots[0] == one]
    return claims_draw(
        {"text": " ".join(say(claim, rng) for claim in given), "person": one},
        [Claim("holds", (one, ",".join(mine)))],
        [Claim("holds", (one, ",".join([*mine[:-1], others[0]])))],
        rng,
        bits=[",".join(mine)],
        curt=_capital(join(mine, "a")) + ".",
        given=given,
    )


FAMILIES = (
    Family(
        "list_kinds",
        "listing",
        (
            "Which of them are {kind}: {words}?",
            "List the {kind}: {words}.",
            "Pick only the {kind}. The words are {words}.",
            "On the sheet are the words {words}. Which of them are {kind}?",
            "Find all of the {kind} in the list: {words}.",
            "The sheet says {words}. Name the {kind}.",
        ),
        _kinds,
    ),
    Family(
        "list_things",
        "listing",
        (
            "{text} Which things does {person} have?",
            "{text} List the things of {person}.",
            "Read the text. {text} Name all of the things of {person}.",
            "{text} Find all of the things of {person}.",
            "List the things of {person}. The text: {text}",
            "{text} What are the things of {person}?",
        ),
        _things,
    ),
    Family(
        "list_others",
        "listing",
        (
            "Which of them are not {kind}: {words}?",
            "List the words that are not {kind}: {words}.",
            "Leave out the {kind}. The words are {words}.",
            "On the sheet are the words {words}. Which of them are not {kind}?",
            "Find all but the {kind} in the list: {words}.",
            "The sheet says {words}. Name the ones that are not {kind}.",
        ),
        _others,
        held_out=True,
    ),
)
