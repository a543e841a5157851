"""Reading: find the one sentence of a short text that answers the question."""

from __future__ import annotations

import random
from collections.abc import Callable

from align.world import lexicon
from align.world.facts import World
from align.world.grammar import Claim, say
from align.world.task import Draw, Family, claims_draw


def _scene(rng: random.Random) -> tuple[int, list[str], list[str]]:
    """Return a number of sentences, and that many people and things."""
    n = rng.randint(2, 3)
    return n, rng.sample(lexicon.PEOPLE, n), rng.sample(lexicon.THING_NAMES, n)


def _text(claims: list[Claim], rng: random.Random) -> str:
    return " ".join(say(claim, rng) for claim in claims)


def _place(rng: random.Random, _world: World) -> Draw:
    n, people, things = _scene(rng)
    spots = rng.sample(lexicon.SPOTS, n)
    given = [Claim("put", row) for row in zip(people, things, spots, strict=True)]
    target = rng.randrange(n)
    wrong = rng.choice([spot for spot in spots if spot != spots[target]])
    return claims_draw(
        {"text": _text(given, rng), "thing": things[target]},
        [Claim("at", (things[target], spots[target]))],
        [Claim("at", (things[target], wrong))],
        rng,
        bits=[spots[target]],
        curt=f"In the {spots[target]}.",
        given=[*given, *(Claim("at", row) for row in zip(things, spots, strict=True))],
    )


def _owner(rng: random.Random, _world: World) -> Draw:
    n, people, things = _scene(rng)
    receivers = rng.sample([person for person in lexicon.PEOPLE if person not in people], n)
    given = [Claim("gave", row) for row in zip(people, things, receivers, strict=True)]
    target = rng.randrange(n)
    return claims_draw(
        {"text": _text(given, rng), "thing": things[target]},
        [Claim("has", (receivers[target], things[target]))],
        [Claim("has", (people[target], things[target]))],
        rng,
        bits=[receivers[target]],
        curt=f"{receivers[target]}.",
        given=[*given, *(Claim("has", row) for row in zip(receivers, things, strict=True))],
    )


def _day(rng: random.Random, _world: World) -> Draw:
    n, people, things = _scene(rng)
    days = rng.sample(lexicon.DAYS, n)
    verbs = [rng.choice(lexicon.VERBS) for _ in range(n)]
    given = [
        Claim("on", (person, verb.base, thing, day))
        for person, verb, thing, day in zip(people, verbs, things, days, strict=True)
    ]
    target = rng.randrange(n)
    person, verb, thing, day = given[target].slots
    wrong = rng.choice([other for other in days if other != day])
    return claims_draw(
        {"text": _text(given, rng), "event": f"{person} {verbs[target].past} the {thing}"},
        [given[target]],
        [Claim("on", (person, verb, thing, wrong))],
        rng,
        bits=[day],
        curt=f"On {day}.",
        given=given,
    )


def _colour(rng: random.Random, _world: World) -> Draw:
    n, _, things = _scene(rng)
    colours = rng.sample(lexicon.COLOURS, n)
    given = [Claim("colour", row) for row in zip(things, colours, strict=True)]
    target = rng.randrange(n)
    wrong = rng.choice([colour for colour in colours if colour != colours[target]])
    return claims_draw(
        {"text": _text(given, rng), "thing": things[target]},
        [given[target]],
        [Claim("colour", (things[target], wrong))],
        rng,
        bits=[colours[target]],
        curt=f"{colours[target].capitalize()}.",
        given=given,
    )


def _family(name: str, draw: Callable[[random.Random, World], Draw], *templates: str, held_out: bool = False) -> Family:
    return Family(f"read_{name}", "reading", templates, draw, held_out=held_out)


FAMILIES = (
    _family(
        "place",
        _place,
        "{text} Where is the {thing}?",
        "{text} In which place can you find the {thing}?",
        "Read the text and answer. {text} Where is the {thing}?",
        "Where is the {thing}? The text: {text}",
        "{text} Name the place of the {thing}.",
        "{text} I want to find the {thing}. Where is it?",
    ),
    _family(
        "owner",
        _owner,
        "{text} Who has the {thing} now?",
        "{text} Who is the one with the {thing}?",
        "Read the text and answer. {text} Who has the {thing}?",
        "Who has the {thing} now? The text: {text}",
        "{text} Name the one with the {thing}.",
        "{text} I want to have the {thing}. Who has it?",
    ),
    _family(
        "day",
        _day,
        "{text} When was it that {event}?",
        "{text} On which day was it that {event}?",
        "Read the text and answer. {text} When was it that {event}?",
        "When was it that {event}? The text: {text}",
        "{text} Name the day on which {event}.",
        "{text} It was one day that {event}. Which day was it?",
    ),
    _family(
        "colour",
        _colour,
        "{text} What is the colour of the {thing}?",
        "{text} Which colour has the {thing}?",
        "Read the text and answer. {text} Which colour has the {thing}?",
        "What is the colour of the {thing}? The text: {text}",
        "{text} Name the colour of the {thing}.",
        "{text} I want to paint the {thing}. Which colour is it now?",
        held_out=True,
    ),
)
