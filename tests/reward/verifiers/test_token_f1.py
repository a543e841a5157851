"""Token F1: by hand, and on responses that are made to score without an answer."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from align.errors import UserError
from reward import TokenF1


def f1(response: str, answer: Any, **settings: Any) -> float:
    return TokenF1(**settings).score(["p"], [[response]], answer=[answer])[0][0]


@pytest.mark.parametrize(
    ("response", "answer", "score"),
    [
        ("Denver Broncos", "Denver Broncos", 1),
        ("the DENVER broncos!", "Denver Broncos", 1),
        ("Broncos Denver", "Denver Broncos", 1),  # a bag of words
        ("Denver", "Denver Broncos", 2 / 3),  # P 1, R 1/2
        ("The Denver Broncos won", "Denver Broncos", 0.8),  # P 2/3, R 1
        ("It was the team of Denver", "Denver Broncos", 2 / 7),  # 5 words, 1 shared: P 1/5, R 1/2
        ("to be or not to be", "to be", 0.5),  # P 2/6, R 1
        ("to to to", "to be or not to be", 4 / 9),  # each word as often as both have it: P 2/3, R 2/6
        ("Carolina", "Denver Broncos", 0),
        ("Straße", "STRASSE", 1),
        ("«Denver» — Broncos…", "Denver Broncos", 1),
        ("42", 42, 1),
        ("丹佛野马队", "丹佛野马队", 1),
        ("丹佛", "丹佛野马队", 0),  # a text without blanks is one word
    ],
)
def test_by_hand(response: str, answer: Any, score: float) -> None:
    assert f1(response, answer) == pytest.approx(score, abs=1e-12)


@pytest.mark.parametrize(
    ("response", "score"),
    # The answer is "Denver Broncos".
    [
        ("", 0),
        (" \n", 0),
        ("the a an", 0),
        ("?!…", 0),
        ("Denver " * 1000, 2 / 1002),  # repeating a word does not pay
        ("Denver Broncos " * 2, 2 / 3),
        ("<think>Denver Broncos</think>", 0),
        ("<think>Denver Broncos", 0),
        ("<think>Carolina</think>Denver Broncos", 1),
        ("<answer>Denver Broncos</answer> because it is known", 1),
        ("Denver Broncos <answer>Carolina</answer>", 0),
        ("<answer>Denver Broncos", 0),
        ("[Denver, Broncos]", 1),
        ("Denver\u200bBroncos", 0),  # no white space
        ("Denver\u00a0Broncos", 1),
        ("\x00Denver Broncos", 0.5),
        ("\ud800 Denver Broncos", 0.8),
        ("x" * 1_000_001, 0),
        ("Denver Broncos" + " " * 1_000_000, 0),  # too long to be read
    ],
)
def test_responses_of_any_kind(response: str, score: float) -> None:
    assert f1(response, "Denver Broncos") == pytest.approx(score, abs=1e-12)


def test_the_best_of_several_answers_counts() -> None:
    golds = json.dumps(["Denver Broncos", "Broncos", "the team of Denver"])
    assert f1("Broncos", golds) == 1
    assert f1("team Denver", golds) == pytest.approx(0.8)  # of the third: P 1, R 2/3
    assert f1("Carolina", golds) == 0
    assert TokenF1().judge("broncos", golds).reason == "nearest to 'broncos'"


@pytest.mark.parametrize("answer", ["[1, 2]", "[a, b", '{"a": "b"}', "[" * 100_000])
def test_an_answer_that_is_no_list_of_texts_is_a_text(answer: str) -> None:
    assert f1(answer, answer) == 1


def test_texts_without_words_are_equal_as_in_squad() -> None:
    assert [f1(text, "A") for text in ("The", "a.", "B", "")] == [1, 1, 0, 0]


@pytest.mark.parametrize("answer", ["[]", '[""]', '["Denver", " "]', '["Denver", 5]'])
def test_a_list_without_texts_is_an_error(answer: str) -> None:
    with pytest.raises(UserError, match="lists no text, or an empty one; correct the column"):
        f1("Denver", answer)


def test_the_answer_is_needed() -> None:
    with pytest.raises(UserError, match="the token_f1 scorer needs the data column `answer`"):
        TokenF1().score(["p"], [["a"]])
    with pytest.raises(UserError, match="the token_f1 scorer finds no `answer` for prompt 0"):
        f1("a", None)


def test_a_million_words_take_a_moment() -> None:
    begin = time.monotonic()
    assert f1("a b " * 250_000, "b") == pytest.approx(2 / 250_001)
    assert time.monotonic() - begin < 3
