"""The loops of rules and verifiers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from align.errors import UserError
from reward.verdict import Rule, Verdict, Verifier


@dataclass(frozen=True, kw_only=True)
class Length(Rule):
    name: str = "length"

    def judge(self, response: str) -> Verdict:
        return Verdict(float(len(response)), "")


@dataclass(frozen=True, kw_only=True)
class Same(Verifier):
    """2 if what is judged is the answer, which is text."""

    name: str = "same"

    def judge(self, response: str, answer: str) -> Verdict:
        assert isinstance(answer, str)
        return Verdict(2.0 * (self.read(response) == answer), "")


def test_a_rule_judges_each_response() -> None:
    assert Length().score(["p", "q", "r"], [["a", "bb"], ["ccc"], []], unused=[1, 2, 3]) == [[1, 2], [3], []]
    with pytest.raises(ValueError, match="zip"):
        Length().score(["p"], [["a"], ["b"]])


def test_a_verifier_compares_with_the_answer_of_the_prompt() -> None:
    found = Same().score(["p", "q"], [["7", "8", "<think>8</think>7"], ["7", " 8"]], answer=[7, " 8"])
    assert found == [[2, 0, 2], [0, 2]]
    assert Same(thinking_tags=()).score(["p"], [["<think>8</think>7", "7"]], answer=["7"]) == [[0, 2]]
    for length in (0, 1, 3):
        with pytest.raises(ValueError, match="zip"):
            Same().score(["p", "q"], [["a"], ["b"]], answer=["x"] * length)


@pytest.mark.parametrize("missing", [None, "", "  \n"])
def test_an_answer_that_is_missing_is_an_error(missing: Any) -> None:
    with pytest.raises(UserError, match="the same scorer finds no `answer` for prompt 1 of this batch"):
        Same().score(["p", "q"], [["a"], ["b"]], answer=["x", missing])
    assert Same().score(["p", "q"], [["0"], ["False"]], answer=[0, False]) == [[2], [2]]  # these are answers


def test_the_column_is_needed() -> None:
    with pytest.raises(UserError, match="the same scorer needs the data column `answer`"):
        Same().score(["p"], [["a"]], response=["a"])
