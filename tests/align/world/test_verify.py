"""Verdicts by hand in a world of two people: what is right, what is complete, what serves the goal, what is a lie."""

from __future__ import annotations

from typing import Any

import pytest

from align.world.facts import Person, World
from align.world.task import Goal
from align.world.verify import Verdict, read, verify

WORLD = World(
    people=(Person("Anna", "Redfield", "baker", "cat", "soup"), Person("Tom", "Oakham", "miller", "dog", "jam")),
    markets=(("Redfield", "Monday"),),
)


def judged(verifier: Any, key: dict[str, Any], answer: str) -> Verdict:
    return verify(Goal("any", verifier, key, 12), read(answer), WORLD)


def check(found: Verdict, correct: float, complete: float, useful: set[int]) -> None:
    assert (found.correct, found.complete) == pytest.approx((correct, complete))
    assert found.useful == useful


HOME = {"want": [["home", "Anna", "Redfield"]], "given": [["at", "lamp", "mill"]], "bits": ["Redfield"]}
NOTE = {"want": [["thanks", "Anna", "kite"], ["signed", "Tom"]], "given": [], "bits": []}
THINGS = {"want": [["holds", "Anna", "bell,drum,kite"]], "given": [], "bits": ["bell,drum,kite"]}
RISING = {"want": [["rising", "3,12,20"]], "given": [], "bits": []}
POLITE = {"want": [["polite_request", "*", "lamp"]], "given": [["rude_request", "lamp"]], "bits": ["lamp"]}


@pytest.mark.parametrize(
    ("key", "answer", "correct", "complete", "useful"),
    [
        (HOME, "Anna lives in Redfield.", 1, 1, {0}),
        (HOME, "Of course. The home of Anna is in Redfield.", 1, 1, {1}),
        # A fact, what the prompt says, courtesy, rudeness and a question are no lies.
        (HOME, "Anna lives in Redfield. Tom keeps a dog.", 1, 1, {0}),
        (HOME, "The market of Redfield is on Monday. A fox eats rabbits. Anna lives in Redfield.", 1, 1, {2}),
        (HOME, "Anna lives in Redfield. A fox is bigger than a bee. A ring costs more than a spoon.", 1, 1, {0}),
        (HOME, "Anna lives in Redfield. The lamp is in the mill.", 1, 1, {0}),
        (HOME, "What a silly question. Where is the lamp? Anna lives in Redfield.", 1, 1, {2}),
        # Each other claim divides by four, also one that is made twice.
        (HOME, "Anna lives in Redfield. The lamp is in the barn.", 1 / 4, 1, {0}),
        (HOME, "Anna lives in Redfield. Tom lives in Redfield. Tom lives in Redfield.", 1 / 16, 1, {0}),
        (HOME, "Anna lives in Redfield. A bee is bigger than a fox.", 1 / 4, 1, {0}),
        (HOME, "Anna lives in Redfield. A spoon costs more than a ring.", 1 / 4, 1, {0}),
        (HOME, "Anna lives in Oakham.", 0, 0, set()),
        (HOME, "Blue blue blue.", 0, 0, set()),
        # A bare word is right but hardly complete; a second one, or one beside the sentence, only guesses.
        (HOME, "Redfield.", 1, 0.3, {0}),
        (HOME, "Gladly. In Redfield.", 1, 0.3, {1}),
        (HOME, "Oakham.", 0, 0, set()),
        (HOME, "Oakham. Redfield.", 1 / 4, 0.3, {1}),
        (HOME, "Anna lives in Redfield. Redfield.", 1 / 4, 1, {0}),
        # Half of two; a wrong signature claims nothing about the world.
        (NOTE, "Dear Anna, thank you for the kite. Yours, Tom.", 1, 1, {0, 1}),
        (NOTE, "Dear Anna, thank you for the kite.", 1 / 2, 1 / 2, {0}),
        (NOTE, "Dear Anna, thank you for the kite. Yours, Anna.", 1 / 2, 1 / 2, {0}),
        (NOTE, "Dear Anna, thank you for the drum. Yours, Tom.", 1 / 8, 1 / 2, {1}),
        # Lists: shared words over all words, in any order, none of them twice; the best sentence counts.
        (THINGS, "Anna has a kite, a bell and a drum.", 1, 1, {0}),
        (THINGS, "Anna has a kite and a bell.", 2 / 3, 1, {0}),
        (THINGS, "Anna has a bell, a drum, a kite and a lamp.", 3 / 4, 1, {0}),
        (THINGS, "Anna has a kite, a bell and a lamp.", 2 / 4, 1, {0}),
        (THINGS, "Anna has a bell, a drum, a kite and a kite.", 0, 0, set()),
        (THINGS, "Tom has a bell, a drum and a kite.", 0, 0, set()),
        (THINGS, "Anna has a bell. Anna has a bell, a drum and a kite. Anna has a drum.", 1, 1, {0, 1, 2}),
        # Where the order is what was asked for, it counts.
        (RISING, "The smallest comes first: 3, 12 and 20.", 1, 1, {0}),
        (RISING, "The smallest comes first: 12, 3 and 20.", 0, 0, set()),
        (RISING, "The largest comes first: 3, 12 and 20.", 0, 0, set()),
        # "*" is any word.
        (POLITE, "Could you please pass me the lamp?", 1, 1, {0}),
        (POLITE, "Would you kindly lend me the lamp?", 1, 1, {0}),
        (POLITE, "Could you please pass me the kite?", 0, 0, set()),
        (POLITE, "Give me the lamp!", 0, 0, set()),
    ],
)
def test_claims(key: dict[str, Any], answer: str, correct: float, complete: float, useful: set[int]) -> None:
    check(judged("claims", key, answer), correct, complete, useful)


@pytest.mark.parametrize(
    ("key", "answer", "parts"),
    [
        ({"want": [["kinds", "animals", "fox,dog"]]}, "Dog and fox are the animals.", 1),
        ({"want": [["others", "animals", "red,jam"]]}, "All but the animals are jam and red.", 1),
        ({"want": [["busy", "Tom", "mend", "bell,drum", "mill"]]}, "Tom mended a drum and a bell in the mill.", 1),
        ({"want": [["busy", "Tom", "mend", "bell,drum", "mill"]]}, "Tom mended a drum in the mill.", 1 / 2),
        ({"want": [["both", "Tom,Anna", "sell", "lamp", "mill"]]}, "Anna and Tom sold the lamp in the mill.", 1),
        ({"want": [["both", "Tom,Anna", "sell", "lamp", "mill"]]}, "Anna and Ben sold the lamp in the mill.", 1 / 3),
        ({"want": [["days", "Monday,Friday"]]}, "The days come in the order Friday and Monday.", 0),
        ({"want": [["sizes", "bee,fox"]]}, "By size the order is fox and bee.", 0),
    ],
)
def test_frames_whose_words_are_a_set(key: dict[str, Any], answer: str, parts: float) -> None:
    found = judged("claims", {"given": [], "bits": [], **key}, answer)
    assert found.correct == pytest.approx(parts)


SUM = {
    "answer": 9,
    "want": [["step", "7+5=12", "12", "nuts"], ["total", "Leo", "12-3=9", "9", "nuts"]],
    "given": [["count", "Leo", "7", "nuts"], ["gets", "Leo", "5", "nuts"], ["gives", "Leo", "3", "nuts"]],
}
STEP, TOTAL = "First that makes <<7+5=12>> 12 nuts.", "Leo has <<12-3=9>> 9 nuts now."


@pytest.mark.parametrize(
    ("answer", "correct", "complete", "useful"),
    [
        (f"{STEP} {TOTAL}\n#### 9", 1, 1, {0, 1, 2}),
        (f"Leo has 7 nuts. Leo gets 5 more nuts. {STEP} {TOTAL}\n#### 9", 1, 1, {2, 3, 4}),
        ("#### 9", 1, 0.25, {0}),
        (f"{TOTAL}\n#### 9", 1, 0.75 / 2 + 0.25, {0, 1}),
        # Without the answer the steps count 0.7.
        (f"{STEP} {TOTAL}", 0.7, 0.75, {0, 1}),
        (STEP, 0.7 / 2, 0.75 / 2, {0}),
        # A wrong answer, a second one, a wrong step and a lie each divide by four.
        (f"{STEP} {TOTAL}\n#### 8", 0.7 / 4, 1, {0, 1, 2}),
        (f"{STEP} {TOTAL}\n#### 9\n#### 9", 0.7 / 16, 1, {0, 1, 2, 3}),
        (f"First that makes <<7+5=13>> 13 nuts. {TOTAL}\n#### 9", 1 / 4, 0.75 / 2 + 0.25, {0, 1, 2}),
        (f"{STEP} {STEP[:-1].replace('nuts', 'eggs')}. {TOTAL}\n#### 9", 1 / 4, 1, {0, 1, 2, 3}),
        (f"Leo has 8 nuts. {STEP} {TOTAL}\n#### 9", 1 / 4, 1, {1, 2, 3}),
        # Nothing right is not complete either.
        ("#### 8", 0, 0, {0}),
        ("Leo has 7 nuts.", 0, 0, set()),
    ],
)
def test_equations(answer: str, correct: float, complete: float, useful: set[int]) -> None:
    check(judged("equations", SUM, answer), correct, complete, useful)


def test_what_is_paid_is_an_equation_too() -> None:
    key = {"answer": 6, "want": [["cost", "Leo", "2*3=6", "6"]], "given": [["each", "nuts", "2"]]}
    check(judged("equations", key, "Leo pays <<2*3=6>> 6 coins.\n#### 6"), 1, 1, {0, 1})
    check(judged("equations", key, "Leo pays <<2*3=7>> 7 coins."), 0, 0, {0})


ANIMAL = {"mood": "happy", "person": "Anna", "animal": "fox", "spot": None}
PLACE = {"mood": "happy", "person": "Anna", "animal": None, "spot": "mill"}
WENT, MET, HAPPY = "Anna went to the mill at noon.", "There Anna met a fox.", "Anna was very happy."


@pytest.mark.parametrize(
    ("key", "answer", "correct", "complete", "useful"),
    [
        (ANIMAL, f"{WENT} {MET} {HAPPY}", 1, 1, {0, 1, 2}),
        (ANIMAL, f"{WENT} Anna played with the fox. {HAPPY}", 1, 1, {0, 1, 2}),
        (ANIMAL, f"{MET} {HAPPY}", 1, 2 / 3, {0, 1}),
        (ANIMAL, f"{WENT} {MET}", 1 / 4, 2 / 3, {0, 1}),
        # One sentence is half a story, and this one has no fox; said again it adds nothing, and is not asked for.
        (ANIMAL, HAPPY, 1 / 2 * 1 / 2, 1 / 3, {0}),
        (ANIMAL, f"{HAPPY} {HAPPY}", 1 / 2 * 1 / 2 / 4, 1 / 3, {0}),
        (ANIMAL, f"{WENT} {HAPPY}", 1 / 2, 2 / 3, {0, 1}),
        (PLACE, f"{WENT} {HAPPY}", 1, 2 / 3, {0, 1}),
        (PLACE, f"{MET} {HAPPY}", 1 / 2, 2 / 3, {0, 1}),
        # Another mood, another person and a lie each divide by four.
        (ANIMAL, f"{WENT} {MET} {HAPPY} Anna was very sad.", 1 / 4, 1, {0, 1, 2, 3}),
        (ANIMAL, f"{WENT} {MET} Anna was very sad.", 1 / 16, 2 / 3, {0, 1, 2}),
        (ANIMAL, f"{WENT} {MET} {HAPPY} Tom was very happy.", 1 / 4, 1, {0, 1, 2, 3}),
        (ANIMAL, f"{WENT} {MET} {HAPPY} Tom lives in Redfield.", 1 / 4, 1, {0, 1, 2}),
        (ANIMAL, f"{WENT} {MET} {HAPPY} Tom lives in Oakham.", 1, 1, {0, 1, 2}),
        ({**ANIMAL, "person": "Tom"}, f"{MET} Tom was very happy.", 1 / 4, 2 / 3, {0, 1}),
        ({**ANIMAL, "person": "Tom"}, f"{WENT} Ben saw a fox near the door. {HAPPY}", 1 / 2 / 16, 1, {0, 1, 2}),
        (ANIMAL, "A fox eats rabbits.", 0, 0, set()),
    ],
)
def test_story(key: dict[str, Any], answer: str, correct: float, complete: float, useful: set[int]) -> None:
    check(judged("story", key, answer), correct, complete, useful)


STRANGER = {"reason": ["stranger", "Boris"]}
MISSING = {"reason": ["not_said"], "given": [["put", "Anna", "lamp", "mill"]]}
NO, WHY = "I do not know that.", "Nobody in the valley knows Boris."


@pytest.mark.parametrize(
    ("key", "answer", "correct", "complete", "useful"),
    [
        (STRANGER, f"{NO} {WHY}", 1, 1, {0, 1}),
        (STRANGER, "I am sorry, but I do not know that. Boris is a stranger here.", 1, 1, {0, 1}),
        (STRANGER, NO, 1, 0.5, {0}),
        (STRANGER, WHY, 0.4, 0.5, {0}),
        (STRANGER, "Of course.", 0, 0, set()),
        (STRANGER, "Boris lives in Redfield.", 0, 0, set()),
        (STRANGER, f"{NO} Nobody in the valley knows Igor.", 1 / 4, 0.5, {0}),
        (STRANGER, f"{NO} {WHY} Tom lives in Redfield.", 1 / 4, 1, {0, 1}),
        (STRANGER, f"{NO} {WHY} Tom lives in Oakham.", 1, 1, {0, 1}),
        (MISSING, f"{NO} The text does not say it. Anna put the lamp in the mill.", 1, 1, {0, 1}),
        (MISSING, f"{NO} The text does not say it. Anna put the lamp in the barn.", 1 / 4, 1, {0, 1}),
    ],
)
def test_refusal(key: dict[str, Any], answer: str, correct: float, complete: float, useful: set[int]) -> None:
    check(judged("refusal", key, answer), correct, complete, useful)


def test_an_unknown_verifier_is_an_error() -> None:
    with pytest.raises(KeyError):
        judged("vote", HOME, "Anna lives in Redfield.")


def test_a_sentence_is_repeated_from_its_second_time_on() -> None:
    answer = read("Gladly. In Redfield. Gladly.\nGladly. Blue.")
    assert [sentence.text for sentence in answer] == ["Gladly.", "In Redfield.", "Gladly.", "Gladly.", "Blue."]
    assert [sentence.repeated for sentence in answer] == [False, False, True, True, False]
    assert [sentence.is_fragment for sentence in answer] == [False, True, False, False, True]
    assert not read("nonsense")[0].is_fragment
