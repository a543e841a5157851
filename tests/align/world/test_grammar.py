from __future__ import annotations

import random
import re
from collections import Counter

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


@pytest.mark.parametrize(
    ("claim", "sentence"),
    [
        (Claim("more", ("Anna", "pears", "Tom")), "Anna has more pears than Tom."),
        (Claim("gave", ("Anna", "lamp", "Tom")), "Anna gave the lamp to Tom."),
        (Claim("does", ("Tom", "wash", "lamp", "mill")), "Tom washes the lamp in the mill."),
        (Claim("did", ("Tom", "break", "lamp", "mill")), "Tom broke the lamp in the mill."),
        (Claim("will", ("Tom", "break", "lamp", "mill")), "Tom will break the lamp in the mill."),
        (Claim("never", ("Tom", "break", "lamp", "mill")), "Tom did not break the lamp in the mill."),
        (Claim("both", ("Tom,Ben,Anna", "hide", "lamp", "mill")), "Tom, Ben and Anna hid the lamp in the mill."),
        (Claim("holds", ("Tom", "bell")), "Tom has a bell."),
        (Claim("holds", ("Tom", "bell,drum,kite")), "Tom has a bell, a drum and a kite."),
        (Claim("others", ("animals", "red,jam")), "The ones that are not animals are red and jam."),
        (Claim("rising", ("3,12,20",)), "From the smallest to the largest they are 3, 12 and 20."),
        (Claim("cost", ("Tom", "2*3=6", "6")), "Tom pays <<2*3=6>> 6 coins."),
        (Claim("went", ("Anna", "mill", "at night")), "Anna went to the mill at night."),
    ],
)
def test_what_a_claim_is_called(claim: Claim, sentence: str):
    assert phrasings(claim)[0] == sentence
    assert parse(sentence) == (claim,)


VALUES = {
    **{"person": "Tom", "person2": "Anna", "name": "Zelda", "stranger": "Boris", "village": "Oakham", "day": "Friday"},
    **{"job": "baker", "food": "jam", "colour": "red", "spot": "mill", "goods": "nuts", "animal": "cat"},
    **{"animal2": "fox", "pet": "dog", "fodder": "hay", "habitat": "pond", "thing": "lamp", "thing2": "bell"},
    **{"material": "wax", "kind": "jobs", "hand": "lend", "base": "lose", "present": "lose", "past": "lose"},
    **{"num": "12", "eq": "20-8=12", "part": "at noon", "nums": "3,12", "words": "hen,jam,red"},
    **{"things": "bell,drum", "people": "Ben,Leo"},
}


@pytest.mark.parametrize("frame", FORMS)
def test_every_wording_of_a_frame_is_read_as_its_claim(frame: str):
    claim = Claim(frame, tuple(VALUES[slot] for slot in re.findall(r"\{(\w+)\}", FORMS[frame][0])))
    for sentence in phrasings(claim):
        assert claim in parse(sentence)
        assert sentence[0] == sentence[0].upper()
        assert "{" not in sentence


def test_a_sentence_may_have_several_meanings():
    assert {claim.slots for claim in parse("Jam and red.")} == {("jam,red",)}
    assert {(claim.frame, claim.slots) for claim in parse("12.")} >= {("bit_12", ("12",)), ("bit_17", ("12",))}
    assert {claim.frame for claim in parse("Anna.")} == {"bit_0"}
    assert parse("You can find a fox in the forest.") == (Claim("dwells", ("fox", "forest")),)


def test_a_sentence_has_at_most_400_characters():
    """14 characters, and 5 for each "fox, "; a frog is one longer."""
    longest = "The sheet says " + ", ".join(["frog", *["fox"] * 76]) + "."
    assert len(longest) == 400
    assert parse(longest) == (Claim("sheet", (",".join(["frog", *["fox"] * 76]),)),)
    assert parse(longest.replace("fox", "frog", 1)) == ()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Rain: It was cold.", ["Rain: It was cold."]),
        ("Boris: Hello. Well!", ["Hello.", "Well!"]),
        ("He said Anna: yes.", ["He said Anna: yes."]),
        ("Anna:no", ["Anna:no"]),
        ("  One.   Two?Three! Four  ", ["One.", "Two?Three!", "Four"]),
        ("\n\n One\n\n", ["One"]),
        ("", []),
    ],
)
def test_only_ends_followed_by_blanks_and_known_speakers_divide(text: str, found: list[str]):
    assert sentences(text) == found


@pytest.mark.parametrize(
    ("sentence", "read"),
    [
        ("Bread is what.", False),
        ("Carrots are the foods.", True),
        ("The foods are Carrots.", False),
        ("The foods are carrots and plums.", True),
        ("On Monday Tom lost the lamp.", True),
        ("On monday Tom lost the lamp.", False),
        ("On the wall are the numbers 3, 12 and 20.", True),
        ("On the wall are the numbers 3, 12345.", False),
        ("A kite is what Tom has.", False),
        ("The things of Tom are a kite and a bell.", True),
        ("The things of Tom are kite and bell.", False),
        ("Tom has a kite, A bell.", False),
        ("Tom losed the lamp in the mill.", False),
        ("Tom loses the lamp in the mill.", True),
    ],
)
def test_words_and_their_forms(sentence: str, read: bool):
    assert bool(parse(sentence)) == read


def test_a_claim_needs_all_its_slots():
    with pytest.raises(KeyError):
        phrasings(Claim("absent"))
    with pytest.raises(ValueError, match="zip"):
        phrasings(Claim("home", ("Anna",)))


def test_the_world_has_every_fact_once_and_spreads_them_evenly():
    """40 people with four facts each, 8 markets, 20 animals with three, 24 things with two."""
    world = World.default()
    assert len(world.claims) == 40 * 4 + 8 + 20 * 3 + 24 * 2
    for column, choices in (("village", 8), ("job", 12), ("pet", 8), ("food", 12)):
        counts = Counter(getattr(person, column) for person in world.people)
        assert len(counts) == choices
        assert set(counts.values()) <= {40 // choices, 40 // choices + 1}
    assert sorted(Counter(day for _, day in world.markets).values()) == [1] * 6 + [2]
    anna = world.people[0]
    assert world.portrait(anna) == [
        Claim("home", ("Anna", anna.village)),
        Claim("job", ("Anna", anna.job)),
        Claim("pet", ("Anna", anna.pet)),
        Claim("likes", ("Anna", anna.food)),
    ]


@pytest.mark.parametrize(
    ("claim", "holds"),
    [
        (Claim("eats", ("fox", "rabbits")), True),
        (Claim("eats", ("fox", "hay")), False),
        (Claim("dwells", ("frog", "pond")), True),
        (Claim("legs", ("spider", "8")), True),
        (Claim("made", ("bell", "bronze")), True),
        (Claim("price", ("ring", "50")), True),
        (Claim("price", ("ring", "5")), False),
        (Claim("bigger", ("fox", "bee")), True),
        (Claim("bigger", ("bee", "fox")), False),
        (Claim("bigger", ("fox", "fox")), False),
        (Claim("dearer", ("ring", "spoon")), True),
        (Claim("dearer", ("spoon", "ring")), False),
        (Claim("dearer", ("ring", "ring")), False),
        (Claim("at", ("lamp", "mill")), False),
    ],
)
def test_what_holds_in_the_world(claim: Claim, holds: bool):
    assert World.default().holds(claim) == holds


def test_worlds_are_decided_by_the_seed():
    assert World.create(1) == World.create(1)
    assert World.create(1) != World.create(2)
    assert World.default() == World.create(0)
