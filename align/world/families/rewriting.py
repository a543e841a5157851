"""Rewriting and style: the same event in another tense, a rude request made polite, a sentence made negative."""

from __future__ import annotations

import random
from collections.abc import Callable

from align.world import lexicon
from align.world.facts import World
from align.world.grammar import Claim, say
from align.world.task import Draw, Family, claims_draw


def _event(source: str, target: str) -> Callable[[random.Random, World], Draw]:
    """Return a draw that turns an event of one frame ("does", "did", …) into another."""

    def draw(rng: random.Random, _world: World) -> Draw:
        verb = rng.choice(lexicon.VERBS).base
        things = rng.sample(lexicon.THING_NAMES, 2)
        slots = (rng.choice(lexicon.PEOPLE), verb, things[0], rng.choice(lexicon.SPOTS))
        wrong = Claim(target, (slots[0], verb, things[1], slots[3]))
        given = Claim(source, slots)
        return claims_draw(
            {"sentence": say(given, rng)},
            [Claim(target, slots)],
            [rng.choice((wrong, given))],
            rng,
            bits=[things[0]],
            curt=f"A {things[0]}.",
            given=[given],
        )

    return draw


def _polite(rng: random.Random, _world: World) -> Draw:
    thing = rng.choice(lexicon.THING_NAMES)
    given = Claim("rude_request", (thing,))
    sentence = say(given, rng)
    drawn = claims_draw(
        {"sentence": sentence},
        [Claim("polite_request", ("*", thing))],
        [given],
        rng,
        bits=[thing],
        curt=f"A {thing}.",
        given=[given],
    )
    hand = rng.choice(lexicon.HANDS)
    references = tuple(text.replace("*", hand) for text in drawn.references)
    return Draw(drawn.words, drawn.key, references, drawn.curt, drawn.careless)


FAMILIES = (
    Family(
        "rewrite_past",
        "rewriting",
        (
            "Rewrite the sentence in the past: {sentence}",
            "Change the sentence so that it happened in the past: {sentence}",
            "Today: {sentence} Say it of yesterday.",
            "{sentence} Rewrite it as something that happened yesterday.",
            "Put the sentence in the past. {sentence}",
            "{sentence} Turn this sentence into the past.",
        ),
        _event("does", "did"),
    ),
    Family(
        "rewrite_future",
        "rewriting",
        (
            "Rewrite the sentence in the future: {sentence}",
            "Change the sentence so that it tells of the future: {sentence}",
            "Today: {sentence} Say it of tomorrow.",
            "{sentence} Rewrite it so that it tells of tomorrow.",
            "Put the sentence in the future. {sentence}",
            "{sentence} Turn this sentence into the future.",
        ),
        _event("does", "will"),
    ),
    Family(
        "rewrite_polite",
        "rewriting",
        (
            "Rewrite the rude request as a polite one: {sentence}",
            "Make it polite: {sentence}",
            "{sentence} Say the same in polite words.",
            "Turn the request into a polite one. {sentence}",
            "What are polite words for this? {sentence}",
            "{sentence} This is rude. Change it.",
        ),
        _polite,
    ),
    Family(
        "rewrite_negative",
        "rewriting",
        (
            "Say the opposite: {sentence}",
            "Make the sentence negative: {sentence}",
            "{sentence} Rewrite it so that it did not happen.",
            "Turn the sentence into the opposite. {sentence}",
            "{sentence} This did not happen. Change the sentence.",
            "{sentence} Say that it did not happen.",
        ),
        _event("did", "never"),
        held_out=True,
    ),
)
