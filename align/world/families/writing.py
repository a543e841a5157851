"""Writing: short stories in a given mood, and notes to friends."""

from __future__ import annotations

import random

from align.world import lexicon
from align.world.facts import World
from align.world.grammar import Claim, say
from align.world.task import Draw, Family, claims_draw


def _story(rng: random.Random, mood: str, person: str, animal: str, spot: str) -> str:
    lines = [Claim("went", (person, spot, rng.choice(lexicon.PARTS))), Claim("met", (person, animal))]
    if rng.random() < 0.3:
        lines.append(Claim("played", (person, animal)))
    return " ".join(say(claim, rng) for claim in [*lines, Claim(mood, (person,))])


def _story_draw(rng: random.Random, *, with_animal: bool) -> Draw:
    mood, other = rng.sample(lexicon.MOODS, 2)
    person, animal, spot = (
        rng.choice(lexicon.PEOPLE),
        rng.choice(lexicon.ANIMAL_NAMES),
        rng.choice(lexicon.SPOTS),
    )
    wanted = {"animal": animal, "spot": None} if with_animal else {"animal": None, "spot": spot}
    key = {"mood": mood, "person": person, **wanted}
    references = tuple(_story(rng, mood, person, animal, spot) for _ in range(3))
    return Draw(
        {"mood": mood, "person": person, "animal": animal, "spot": spot},
        key,
        references,
        say(Claim(mood, (person,)), rng),
        _story(rng, other, person, animal, spot),
    )


def _story_animal(rng: random.Random, _world: World) -> Draw:
    return _story_draw(rng, with_animal=True)


def _story_place(rng: random.Random, _world: World) -> Draw:
    return _story_draw(rng, with_animal=False)


def _thanks(rng: random.Random, _world: World) -> Draw:
    one, two = rng.sample(lexicon.PEOPLE, 2)
    thing, other = rng.sample(lexicon.THING_NAMES, 2)
    want = [Claim("thanks", (one, thing)), Claim("signed", (two,))]
    return claims_draw(
        {"to": one, "by": two, "thing": thing},
        want,
        [Claim("thanks", (one, other)), Claim("signed", (one,))],
        rng,
        bits=[],
        curt=say(want[0], rng),
    )


def _invitation(rng: random.Random, _world: World) -> Draw:
    one, two = rng.sample(lexicon.PEOPLE, 2)
    spot, other = rng.sample(lexicon.SPOTS, 2)
    day = rng.choice(lexicon.DAYS)
    want = [Claim("invitation", (one, spot, day)), Claim("signed", (two,))]
    return claims_draw(
        {"to": one, "by": two, "spot": spot, "day": day},
        want,
        [Claim("invitation", (one, other, day)), Claim("signed", (one,))],
        rng,
        bits=[],
        curt=say(want[0], rng),
    )


FAMILIES = (
    Family(
        "story_animal",
        "writing",
        (
            "Write a short {mood} story about {person} and a {animal}.",
            "Write a story about {person} and a {animal} with a {mood} end.",
            "Tell a {mood} story in a few sentences: {person} and the {animal}.",
            "I want a {mood} story about a {animal} and {person}.",
            "In a few sentences, write of {person} and a {animal}. The story is {mood}.",
            "{person} met a {animal}. Make a {mood} story out of it.",
        ),
        _story_animal,
        "story",
    ),
    Family(
        "story_place",
        "writing",
        (
            "Write a short {mood} story about {person} in the {spot}.",
            "Write a story about {person} in the {spot} with a {mood} end.",
            "Tell a {mood} story in a few sentences: {person} in the {spot}.",
            "I want a {mood} story about the {spot} and {person}.",
            "In a few sentences, write of {person} in the {spot}. The story is {mood}.",
            "{person} went to the {spot}. Make a {mood} story out of it.",
        ),
        _story_place,
        "story",
    ),
    Family(
        "note_thanks",
        "writing",
        (
            "Write a note: {by} thanks {to} for the {thing}.",
            "{by} got the {thing} from {to}. Write a note of thanks.",
            "Write a few words to thank {to} for the {thing}. Sign it as {by}.",
            "Thank {to} for the {thing} in a short note by {by}.",
            "{by} wants to thank {to} for the {thing}. Write the note.",
            "A note to {to}, signed by {by}: thank you for the {thing}.",
        ),
        _thanks,
    ),
    Family(
        "note_invitation",
        "writing",
        (
            "Write a note: {by} asks {to} to come to the {spot} on {day}.",
            "Invite {to} to the {spot} on {day}. Sign it as {by}.",
            "{by} wants to meet {to} in the {spot} on {day}. Write the note.",
            "Write a short note by {by} to invite {to} to the {spot} on {day}.",
            "On {day} {by} is in the {spot} and wants to see {to} there. Invite {to}.",
            "A note to {to}, signed by {by}: come to the {spot} on {day}.",
        ),
        _invitation,
    ),
)
