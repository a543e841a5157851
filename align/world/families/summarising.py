"""Summarising: one sentence for several about the same work."""

from __future__ import annotations

import random

from align.world import lexicon
from align.world.facts import World
from align.world.grammar import Claim, join, say
from align.world.task import Draw, Family, claims_draw


def _things(rng: random.Random, _world: World) -> Draw:
    person, verb, spot = (
        rng.choice(lexicon.PEOPLE),
        rng.choice(lexicon.VERBS).base,
        rng.choice(lexicon.SPOTS),
    )
    things = rng.sample(lexicon.THING_NAMES, rng.randint(2, 3))
    given = [Claim("did", (person, verb, thing, spot)) for thing in things]
    curt = join(things, "a")
    return claims_draw(
        {"text": _text(given, rng)},
        [Claim("busy", (person, verb, ",".join(things), spot))],
        [Claim("did", (person, verb, rng.choice(lexicon.THING_NAMES), spot))],
        rng,
        bits=[",".join(things)],
        curt=curt[0].upper() + curt[1:] + ".",
        given=given,
    )


def _people(rng: random.Random, _world: World) -> Draw:
    people = rng.sample(lexicon.PEOPLE, rng.randint(2, 3))
    verb, spot = rng.choice(lexicon.VERBS).base, rng.choice(lexicon.SPOTS)
    thing, other = rng.sample(lexicon.THING_NAMES, 2)
    given = [Claim("did", (person, verb, thing, spot)) for person in people]
    return claims_draw(
        {"text": _text(given, rng)},
        [Claim("both", (",".join(people), verb, thing, spot))],
        [Claim("both", (",".join(people), verb, other, spot))],
        rng,
        bits=[thing],
        curt=f"A {thing}.",
        given=given,
    )


def _text(given: list[Claim], rng: random.Random) -> str:
    """Return the sentences, half of the time with a remark about the weather in between."""
    lines = [say(claim, rng) for claim in given]
    if rng.random() < 0.5:
        lines.insert(rng.randrange(len(lines) + 1), say(Claim("weather"), rng))
    return " ".join(lines)


_TEMPLATES = (
    "{text} Sum up the news in one sentence.",
    "Sum up the text: {text}",
    "Summarise what they did in one sentence. {text}",
    "{text} What is the news in short?",
    "{text} Say it in one short sentence.",
    "Read the text and sum it up. {text}",
)

FAMILIES = (
    Family("summary_things", "summarising", _TEMPLATES, _things),
    Family("summary_people", "summarising", _TEMPLATES, _people),
)
