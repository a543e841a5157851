"""Splits by prompt, and leakage between data sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from align.data import Preferences, leaked_prompts
from align.errors import UserError

Pair = Callable[..., dict[str, Any]]


def prompts(preferences: Preferences) -> set[str]:
    return {row["prompt"][0]["content"] for row in preferences}


@pytest.fixture
def preferences(pair: Pair) -> Preferences:
    """40 rows over 10 prompts, whose ids say nothing of which prompts are the same."""
    return Preferences.from_rows(
        [pair(number % 10, chosen=f"It is {number}", prompt_id=f"id{number}") for number in range(40)]
    )


@pytest.mark.parametrize(("heldout", "rows"), [(2, 8), (0.2, 8), (0.01, 4), (0.99, 36), (5, 20)])
def test_no_prompt_is_on_both_sides(preferences: Preferences, heldout: float, rows: int) -> None:
    train, test = preferences.train_test_split(heldout, seed=0)
    assert (len(train), len(test)) == (40 - rows, rows)
    assert not prompts(train) & prompts(test)
    assert prompts(train) | prompts(test) == prompts(preferences)
    assert leaked_prompts(train, test) == []
    assert train.report == preferences.report


def test_the_split_depends_on_seed_and_prompts_alone(preferences: Preferences) -> None:
    _, first = preferences.train_test_split(3, seed=1)
    _, again = preferences.train_test_split(3, seed=1)
    _, other = preferences.train_test_split(3, seed=2)
    _, reordered = preferences.select(reversed(range(40))).train_test_split(3, seed=1)
    assert [row["place"] for row in first] == [row["place"] for row in again]
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert prompts(first) == prompts(reordered) != prompts(other)


@pytest.mark.parametrize("heldout", [0, 10, -3, 0.0, 1.0, 1.5, float("nan")])
def test_a_side_that_would_be_empty_is_an_error(preferences: Preferences, heldout: float) -> None:
    with pytest.raises(UserError, match="leaves one side empty"):
        preferences.train_test_split(heldout, seed=0)


def test_one_prompt_cannot_be_split(pair: Pair) -> None:
    with pytest.raises(UserError, match=r"data\.heldout_size=0\.5 of 1 prompts"):
        Preferences.from_rows([pair(0), pair(0, chosen="One.")]).train_test_split(0.5, seed=0)


def test_44_leaked_prompts_are_named(pair: Pair) -> None:
    train = Preferences.from_rows([pair(0), pair(1)], name="train")
    heldout = Preferences.from_rows([pair(2), pair(1, chosen="Two."), pair(3)], name="heldout")
    assert leaked_prompts(train, heldout) == ["heldout:2"]


def test_rewritten_rows_are_known_by_what_was_made(pair: Pair) -> None:
    """The cache of the tokenised rows goes by it."""
    preferences = Preferences.from_rows([pair(0), pair(1)])

    def answered(text: str) -> Preferences:
        return preferences.rewritten(lambda row: [{**row, "chosen": [{"role": None, "content": text}]}])

    yes, again, no = answered("Yes."), answered("Yes."), answered("No.")
    assert [row["chosen"][0]["content"] for row in no] == ["No.", "No."]
    assert yes.fingerprint == again.fingerprint
    assert len({preferences.fingerprint, yes.fingerprint, no.fingerprint}) == 3


def test_a_prompt_may_end_with_what_a_tool_answered() -> None:
    turns = [("user", "What is 2 + 2?"), ("assistant", "add(2, 2)"), ("tool", "4")]
    prompt = [{"role": role, "content": content} for role, content in turns]
    sides = {side: [{"role": "assistant", "content": text}] for side, text in (("chosen", "4."), ("rejected", "5."))}
    (row,) = Preferences.from_rows([{"prompt": prompt, **sides}])
    assert row["prompt"] == prompt
