from __future__ import annotations

import random
import re

import pytest

from align.world.facts import World
from align.world.forms import FORMS
from align.world.grammar import Claim, join, parse, phrasings, say, sentences


def test_every_fact_can_be_said_and_read_back():
    for claim in World.default().claims:
        for sentence in phrasings(claim):
            assert claim in parse(sentence)


def test_all_forms_of_a_frame_use_the_same_slots():
    for frame, forms in FORMS.items():
        slots = [sorted(re.findall(r"\{(\w+)\}", form)) for form in forms]
        assert all(other == slots[0] for other in slots), frame


@pytest.mark.parametrize(
    ("sentence", "claim"),
    [
        ("The kettle is with Tom.", Claim("has", ("Tom", "kettle"))),
        ("Tom has fewer pears than Anna.", Claim("more", ("Anna", "pears", "Tom"))),
        ("Anna has <<7+5=12>> 12 pears now.", Claim("total", ("Anna", "7+5=12", "12", "pears"))),
        ("Fox and dog are the animals.", Claim("kinds", ("animals", "fox,dog"))),
        ("At noon, Anna came to the mill.", Claim("went", ("Anna", "mill", "at noon"))),
        ("In the mill, Anna mended a bell and a drum.", Claim("busy", ("Anna", "mend", "bell,drum", "mill"))),
        ("#### 12", Claim("final", ("12",))),
    ],
)
def test_sentences_are_read(sentence: str, claim: Claim):
    assert claim in parse(sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        *(
            "",
            "Anna",
            "Anna lives in Elmford",
            "Anna live in Elmford.",
            "Anna lives in London.",
            "anna lives in Elmford.",
        ),
        *("Anna lives in Elmford..", "lives Anna in Elmford.", "Anna lives in Elmford. ", "The Kettle is with Tom."),
        *("Anna has <<7+5=x>> 12 pears now.", "x" * 100_000, "a, " * 100_000, "<<" * 200),
    ],
)
def test_other_texts_are_not_sentences(sentence: str):
    assert parse(sentence) == ()


def test_sentences_are_split_at_ends_lines_and_speakers():
    text = "Tom: Where is the lamp?\nAnna: Of course. The lamp is in the mill.\n#### 12"
    assert sentences(text) == ["Where is the lamp?", "Of course.", "The lamp is in the mill.", "#### 12"]


def test_join():
    assert join(["fox"]) == "fox"
    assert join(["drum", "bell", "kite"], "a") == "a drum, a bell and a kite"


def test_saying_is_decided_by_the_seed():
    claim = Claim("home", ("Anna", "Elmford"))
    assert say(claim, random.Random(3)) == say(claim, random.Random(3))
    assert {say(claim, random.Random(seed)) for seed in range(30)} == set(phrasings(claim))


def test_worlds_are_decided_by_the_seed():
    assert World.create(1) == World.create(1)
    assert World.create(1) != World.create(2)
    assert World.default() == World.create(0)
