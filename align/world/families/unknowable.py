"""The unknowable: questions without an answer, to decline politely and with the reason."""

from __future__ import annotations

import random

from align.world import lexicon
from align.world.facts import World
from align.world.grammar import Claim, phrasings, say
from align.world.task import Draw, Family, to_list


def _refusal(words: dict[str, str], reason: Claim, invented: Claim, rng: random.Random) -> Draw:
    """Return a draw whose good answer declines and says why, and whose careless answer makes something up."""
    references = tuple(f"{no} {why}" for no in phrasings(Claim("dont_know")) for why in phrasings(reason))
    return Draw(words, {"reason": to_list(reason)}, references, say(Claim("dont_know"), rng), say(invented, rng))


def _stranger(rng: random.Random, _world: World) -> Draw:
    name, person = rng.choice(lexicon.STRANGERS), rng.choice(lexicon.PEOPLE)
    frame, question = rng.choice(
        (
            ("home", "Where does {} live?"),
            ("job", "What is the work of {}?"),
            ("pet", "Which pet does {} keep?"),
            ("likes", "What is the favourite food of {}?"),
        )
    )
    pools = {"home": lexicon.VILLAGES, "job": lexicon.JOBS, "pet": lexicon.PETS, "likes": lexicon.FOODS}
    invented = Claim(frame, (person, rng.choice(pools[frame])))
    drawn = _refusal({"question": question.format(name)}, Claim("stranger", (name,)), invented, rng)
    careless = drawn.careless.replace(person, name)
    key = {**drawn.key, "asked": question.format(name)}
    return Draw(drawn.words, key, drawn.references, drawn.curt, careless)


def _missing(rng: random.Random, _world: World) -> Draw:
    people, things = rng.sample(lexicon.PEOPLE, 2), rng.sample(lexicon.THING_NAMES, 3)
    spots = rng.sample(lexicon.SPOTS, 2)
    given = [Claim("put", row) for row in zip(people, things[:2], spots, strict=True)]
    text = " ".join(say(claim, rng) for claim in given)
    words = {"text": text, "thing": things[2]}
    drawn = _refusal(words, Claim("not_said"), Claim("at", (things[2], spots[0])), rng)
    key = {**drawn.key, "asked": things[2], "given": [to_list(claim) for claim in given]}
    return Draw(words, key, drawn.references, drawn.curt, drawn.careless)


def _future(rng: random.Random, _world: World) -> Draw:
    person, verb = rng.choice(lexicon.PEOPLE), rng.choice(lexicon.VERBS)
    invented = Claim("will", (person, verb.base, rng.choice(lexicon.THING_NAMES), rng.choice(lexicon.SPOTS)))
    drawn = _refusal({"person": person, "verb": verb.base}, Claim("future"), invented, rng)
    key = {**drawn.key, "asked": [person, verb.base]}
    return Draw(drawn.words, key, drawn.references, drawn.curt, drawn.careless)


FAMILIES = (
    Family(
        "unknown_stranger",
        "unknowable",
        (
            "{question}",
            "A friend asked: {question}",
            "I want to know it. {question}",
            "{question} Answer in one sentence.",
            "Read the question and answer. {question}",
            "I hope you know this. {question}",
        ),
        _stranger,
        "refusal",
    ),
    Family(
        "unknown_missing",
        "unknowable",
        (
            "{text} Where is the {thing}?",
            "{text} In which place can you find the {thing}?",
            "Read the text and answer. {text} Where is the {thing}?",
            "Where is the {thing}? The text: {text}",
            "{text} Name the place of the {thing}.",
            "{text} I want to find the {thing}. Where is it?",
        ),
        _missing,
        "refusal",
    ),
    Family(
        "unknown_future",
        "unknowable",
        (
            "What will {person} {verb} next year?",
            "Which thing will {person} {verb} in ten years?",
            "Tell me what {person} will {verb} next summer.",
            "In ten years, what will {person} {verb}?",
            "I want to know what {person} will {verb} next year.",
            "What is the thing that {person} will {verb} next summer?",
        ),
        _future,
        "refusal",
    ),
)
