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


PERSON = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 0}}, "required": ["age"]}


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
