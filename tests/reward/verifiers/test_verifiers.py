from __future__ import annotations

import json
import time

import pytest

from align.errors import UserError
from reward.verifiers.answers import ExactMatch, JsonSchema, MultipleChoice, normalize


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("B", "B"),
        ("(B) Paris", "B"),
        ("B. Paris", "B"),
        ("**B** is right", "B"),
        ("Let me think. The answer is (B).", "B"),
        ("The answer is **B**.", "B"),
        ("Answer: A, no wait. Answer: B", "B"),
        (r"So \boxed{B}", "B"),
        ("reasons\n#### B", "B"),
        ("The answer is C", "C"),
        ("I say B", ""),
        ("A bird is B", ""),
        ("Because", ""),
        ("The answer is Both", ""),
        ("<answer>B, C</answer>", ""),
        ("The answer is B or C", ""),
        ("Answer: B/C", ""),
        (r"\boxed{B, C, D}", ""),
        ("<answer>B C D</answer>", ""),
        ("B) or C)", ""),
        ("Answer: B. Answer: (B) and (C).", ""),
        ("<answer>B is wrong</answer>", ""),
        ("The answer is B, because C is wrong", "B"),
        ("The answer is B, and C is wrong", "B"),
        ("The answer is B. A bird can fly.", "B"),
        ("", ""),
    ],
)
def test_multiple_choice(response: str, letter: str) -> None:
    assert MultipleChoice().score(["p"], [[response]], answer=["B"]) == [[float(letter == "B")]]
    assert MultipleChoice().score(["p"], [[response]], answer=["(C) x"]) == [[float(letter == "C")]]


def test_multiple_choice_refuses_an_answer_that_is_no_letter() -> None:
    with pytest.raises(UserError, match="letters"):
        MultipleChoice().score(["p"], [["F"]], answer=["F"])
    assert MultipleChoice(letters="ABCDEF").score(["p"], [["F"]], answer=["F"]) == [[1]]
    with pytest.raises(UserError):
        MultipleChoice(letters="AA")


def test_exact_match_after_normalisation() -> None:
    assert normalize("  The Eiffel-Tower, a “tower”!") == "eiffeltower tower"
    scorer = ExactMatch()
    scores = scorer.score(
        ["p"], [["The Beatles.", "beatles", "ＢＥＡＴＬＥＳ", "The Beatles band", ""]], answer=["Beatles"]
    )
    assert scores == [[1, 1, 1, 0, 0]]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("A man, an ape; the End.", "man ape end"),
        ("Straße STRASSE", "strasse strasse"),  # letter case as Unicode folds it
        ("ﬁve ½ Ⅳ", "five 1⁄2 iv"),
        ("«Anna’s» theory—then", "annas theorythen"),  # articles are whole words
        ("Vitamin-A, the-end, a.m.", "vitamina theend am"),  # punctuation goes first, as in SQuAD's script
        (" a\n\tb ", "b"),
        ("3 + 4 = $7", "3 + 4 = $7"),  # signs are no punctuation
    ],
)
def test_normalised_texts(text: str, normal: str) -> None:
    assert normalize(text) == normal


@pytest.mark.parametrize(
    ("response", "score"),
    [
        ("<think>x</think>Paris", 1),
        ("I say <answer> paris </answer>, yes", 1),
        ("<answer>Rome</answer> Paris", 0),
        ("x" * 10_499 + "Paris", 0),
        ("Paris" + " " * 10_500, 0),  # much longer than the answer: not looked at
        ("Paris" + " " * 10_000, 1),
    ],
)
def test_exact_match_of_what_is_judged(response: str, score: float) -> None:
    assert ExactMatch().judge(response, "Paris").score == score


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("A. Paris, yet the answer is B", "B"),  # a mark counts before the first letter
        ("The answer is A. Or rather, the answer is (B).", "B"),
        ("Option: B", "B"),
        ("The correct choice is option B", "B"),
        ("<answer>B</answer> and not A", "B"),
        ("ANSWER: B", "B"),
        ("the answer is A because it is. #### B", "B"),
        ("<think>Answer: A</think>B", "B"),
        ("B: Paris", "B"),
        ("the answer is A bird", ""),
        ("answer: b", ""),
        ("B Paris", ""),
    ],
)
def test_which_letter_is_chosen(response: str, letter: str) -> None:
    for right in "AB":
        assert MultipleChoice().judge(response, right).score == float(letter == right)


def test_letters_are_those_of_the_settings() -> None:
    assert MultipleChoice().letters == "ABCDE"
    assert MultipleChoice(letters="XY").judge("Answer: Y", "Y").score == 1
    assert MultipleChoice(letters="XY").judge("Answer: A. Answer: X", "Y").score == 0
    for letters in ("A", "ab", "A1", "ABA", ""):
        with pytest.raises(UserError, match="must be two or more different capitals"):
            MultipleChoice(letters=letters)
    with pytest.raises(UserError, match="does not begin with one of AB"):
        MultipleChoice(letters="AB").judge("A", "C")


@pytest.mark.parametrize(
    ("response", "score"),
    [
        ('<think>{}</think> {"age": 3} ', 1),
        ('I give <answer>{"age": 3}</answer>', 1),
        ('<answer>{"age": 3}</answer>.', 1),  # what follows the tag does not count
        ('<answer>{"age": 3}', 0),
        ('{"age": 3, "form": "<answer>x</answer>"}', 1),  # JSON alone may hold tags
        ('[{"age": 3}, "<answer>"]', 0),
        ('```JSON\n{"age": 3}\n```', 1),
        ('```\n{"age": 3}\n```', 1),
        ('```json\n{"age": 3}\n``` done', 0),
        ('{"age": 3}' + " " * 100_000, 0),  # too long to be looked at
    ],
)
def test_what_may_stand_around_json(response: str, score: float) -> None:
    assert JsonSchema(schema=PERSON).judge(response, json.dumps(PERSON)).score == score


def test_each_prompt_may_have_a_schema_and_that_of_the_settings_wins() -> None:
    texts = [["1", '"a"'], ["1", '"a"']]
    kinds = [json.dumps({"type": kind}) for kind in ("integer", "string")]
    assert JsonSchema().score(["p", "q"], texts, answer=kinds) == [[1, 0], [0, 1]]
    assert JsonSchema(schema={"type": "integer"}).score(["p", "q"], texts, answer=kinds) == [[1, 0], [1, 0]]
    for schema in ({"type": "thing"}, {"pattern": 3}):
        with pytest.raises(UserError, match="is not a valid schema"):
            JsonSchema(schema=schema)


PERSON: dict[str, object] = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 0}},
    "required": ["age"],
}


@pytest.mark.parametrize(
    ("response", "score"),
    [
        ('{"age": 3}', 1),
        ('```json\n{"age": 3}\n```', 1),
        ('{"age": -3}', 0),
        ('{"age": "3"}', 0),
        ("{}", 0),
        ('Here: {"age": 3}', 0),
        ('{"age": NaN}', 0),
        ("", 0),
    ],
)
def test_json_schema(response: str, score: float) -> None:
    assert JsonSchema(schema=PERSON).score(["p"], [[response]]) == [[score]]
    assert JsonSchema().score(["p"], [[response]], answer=[json.dumps(PERSON)]) == [[score]]


def test_nan_is_no_json() -> None:
    assert JsonSchema(schema={}).score(["p"], [["[1]", "[NaN]", "[-Infinity]"]]) == [[1, 0, 0]]


@pytest.mark.parametrize("schema", ["{", "[1]", '{"type": "thing"}', "7"])
def test_a_wrong_schema_is_refused(schema: str) -> None:
    with pytest.raises(UserError, match="schema"):
        JsonSchema().score(["p"], [["{}"]], answer=[schema])


def test_a_schema_is_needed() -> None:
    with pytest.raises(UserError, match="answer"):
        JsonSchema().score(["p"], [["{}"]])


@pytest.mark.parametrize(
    ("schema", "response"),
    [
        (PERSON, "[" * 90_000),
        (PERSON, "{" * 10_000_000),
        (PERSON, "9" * 90_000),
        ({"type": "string", "pattern": "^(a+)+$"}, json.dumps("a" * 50 + "b")),
        ({"type": "array", "uniqueItems": True}, "[" + ",".join(f'{{"a":{i}}}' for i in range(7000)) + "]"),
    ],
    ids=["nesting", "megabytes", "digits", "backtracking", "quadratic"],
)
def test_hostile_json_ends_in_time(schema: dict[str, object], response: str) -> None:
    scorer = JsonSchema(schema=schema)
    scorer.score(["p"], [["{}"]])  # the process runs
    begin = time.monotonic()
    ((score,),) = scorer.score(["p"], [[response]])
    assert time.monotonic() - begin < 12
    assert score in (0, 1)
    assert score == 0 or "uniqueItems" in schema
