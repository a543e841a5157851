"""Recall: facts that only the pretraining text has."""

from __future__ import annotations

import random
from collections.abc import Callable

from align.world.facts import World
from align.world.grammar import Claim
from align.world.task import Draw, Family, claims_draw


def _recall(frame: str, bit: str) -> Callable[[random.Random, World], Draw]:
    """Return a draw about a random fact of a frame; `bit` is the curt answer, with {} for the value."""

    def draw(rng: random.Random, world: World) -> Draw:
        facts = sorted((claim for claim in world.claims if claim.frame == frame), key=lambda claim: claim.slots)
        fact = rng.choice(facts)
        subject, value = fact.slots
        wrong = rng.choice([other.slots[1] for other in facts if other.slots[1] != value])
        text = bit.format(value)
        return claims_draw(
            {"subject": subject},
            [fact],
            [Claim(frame, (subject, wrong))],
            rng,
            bits=[value],
            curt=text[0].upper() + text[1:],
        )

    return draw


def _family(name: str, frame: str, bit: str, *templates: str, held_out: bool = False) -> Family:
    return Family(f"recall_{name}", "recall", templates, _recall(frame, bit), held_out=held_out)


FAMILIES = (
    _family(
        *("home", "home", "In {}."),
        "Where does {subject} live?",
        "In which village is the house of {subject}?",
        "Name the village of {subject}.",
        "I want to go to the house of {subject}. In which village is it?",
        "Where is the home of {subject}?",
        "Which village does {subject} live in?",
    ),
    _family(
        *("job", "job", "A {}."),
        "What is the work of {subject}?",
        "How does {subject} earn a living?",
        "Name the work of {subject}.",
        "What does {subject} work as?",
        "{subject} works every day. As what?",
        "Tell me the work of {subject}.",
    ),
    _family(
        *("pet", "pet", "A {}."),
        "Which pet does {subject} keep?",
        "What animal does {subject} have at home?",
        "Name the pet of {subject}.",
        "{subject} has an animal at home. Which one is it?",
        "What is the pet of {subject}?",
        "Which animal does {subject} keep?",
    ),
    _family(
        *("eats", "eats", "{}."),
        "What does a {subject} eat?",
        "What is the food of a {subject}?",
        "Name the food of a {subject}.",
        "I have a {subject}. What does it eat?",
        "What does a {subject} live on?",
        "Which food does a {subject} like?",
    ),
    _family(
        *("dwells", "dwells", "In the {}."),
        "Where does a {subject} live?",
        "Where can you find a {subject}?",
        "Name the home of a {subject}.",
        "In which place does a {subject} live?",
        "What is the home of a {subject}?",
        "Where is a {subject} at home?",
    ),
    _family(
        *("legs", "legs", "{}."),
        "How many legs does a {subject} have?",
        "On how many legs does a {subject} walk?",
        "Name the number of legs of a {subject}.",
        "What is the number of legs of a {subject}?",
        "A {subject} has legs. How many?",
        "Tell me how many legs a {subject} has.",
    ),
    _family(
        *("made", "made", "{}."),
        "What is a {subject} made of?",
        "What do people make a {subject} out of?",
        "What does it take to make a {subject}?",
        "I want to make a {subject}. Out of what?",
        "Out of what is a {subject}?",
        "Tell me what a {subject} is made of.",
    ),
    _family(
        *("price", "price", "{} coins."),
        "What does a {subject} cost?",
        "How many coins do you pay for a {subject}?",
        "What is the price of a {subject}?",
        "I want to buy a {subject}. What is the price?",
        "Name the price of a {subject}.",
        "Tell me how many coins a {subject} costs.",
    ),
    _family(
        *("market", "market", "On {}."),
        "When is the market of {subject}?",
        "On which day has {subject} its market?",
        "Name the day of the market of {subject}.",
        "I want to go to the market of {subject}. On which day is it?",
        "On which day do people go to the market of {subject}?",
        "Tell me the day of the market of {subject}.",
    ),
    _family(
        *("likes", "likes", "{}."),
        "What food does {subject} like most?",
        "What is the favourite food of {subject}?",
        "Name the favourite food of {subject}.",
        "What would {subject} eat every day?",
        "Which food does {subject} like most of all?",
        "Tell me the favourite food of {subject}.",
        held_out=True,
    ),
)
