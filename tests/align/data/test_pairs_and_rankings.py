"""Rows to examples by hand: what each unit takes from a row, and rankings rebuilt from their pairs."""

from __future__ import annotations

from typing import Any

import pytest

from align.data.load_report import RowError
from align.data.pairs_and_rankings import Draft, draft, group_rows, ranked
from align.data.schema import Message, Unit

PROMPT = [{"role": "user", "content": "q"}]


def answer(text: str) -> Message:
    return {"role": "assistant", "content": text}


def texts(example: Draft) -> list[str]:
    return [response["content"] for response in example.responses]


def row(chosen: str | None, rejected: str | None, **fields: Any) -> dict[str, Any]:
    sides = {"chosen": chosen, "rejected": rejected}
    messages = {name: text and [answer(text)] for name, text in sides.items()}
    empty = dict.fromkeys(("chosen_score", "rejected_score", "margin", "weight", "tools", "ranking"))
    return {"prompt": PROMPT, **messages, **empty, **fields}


FULL = row(
    "a",
    "b",
    chosen_score=3.0,
    rejected_score=1.0,
    margin=0.5,
    weight=0.0,
    chosen_drawn=[1],
    rejected_drawn=[2],
    drawn_with="w",
    tools="[]",
)


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("prompt", Draft(prompt=PROMPT, tools="[]", weight=0.0)),
        (
            "demonstration",
            Draft(
                prompt=PROMPT,
                tools="[]",
                responses=[answer("a")],
                drawn=[[1]],
                drawn_with="w",
                scores=[3.0],
                weight=0.0,
            ),
        ),
        *(
            (
                unit,
                Draft(
                    prompt=PROMPT,
                    tools="[]",
                    responses=[answer("a"), answer("b")],
                    drawn=[[1], [2]],
                    drawn_with="w",
                    scores=[3.0, 1.0],
                    comparisons=[(0, 1)],
                    margin=0.5,
                    weight=0.0,
                ),
            )
            for unit in ("pair", "ranking")
        ),
    ],
)
def test_what_a_unit_takes_from_a_row(unit: Unit, expected: Draft) -> None:
    assert draft([FULL], unit) == expected


@pytest.mark.parametrize("unit", ["prompt", "demonstration", "pair", "ranking"])
def test_a_row_without_a_weight_weighs_one(unit: Unit) -> None:
    assert draft([row("a", "b")], unit).weight == 1.0


@pytest.mark.parametrize(
    ("unit", "chosen", "rejected", "reason"),
    [
        ("pair", "a", None, "rejected is null (a pair needs it)"),
        ("pair", None, "b", "chosen is null (a pair needs it)"),
        ("pair", None, None, "chosen is null (a pair needs it)"),
        ("demonstration", None, "b", "chosen is null (a demonstration needs it)"),
        ("ranking", "a", None, "fewer than two responses (a ranking needs two)"),
        ("ranking", None, None, "fewer than two responses (a ranking needs two)"),
        ("prompt", None, None, None),
        ("demonstration", "a", None, None),
    ],
)
def test_what_a_unit_needs(unit: Unit, chosen: str | None, rejected: str | None, reason: str | None) -> None:
    if reason is None:
        assert draft([row(chosen, rejected)], unit).comparisons == []
        return
    with pytest.raises(RowError) as error:
        draft([row(chosen, rejected)], unit)
    assert str(error.value) == reason


def test_rows_of_a_ranking_are_those_of_its_prompt_id_in_order() -> None:
    ids = ["p", "q", "p", "r", "q", "p"]
    assert group_rows(ids, "ranking") == [[0, 2, 5], [1, 4], [3]]
    for unit in ("prompt", "demonstration", "pair"):
        assert group_rows(iter(ids), unit) == [[0], [1], [2], [3], [4], [5]]


def test_a_ranking_of_four_by_hand() -> None:
    """a > b and c > d are given; a 5 and d 1 are scored, and b as much as d; c has no score."""
    rows = [
        row("c", "d", rejected_score=1.0, weight=2.0, margin=9.0),
        row("a", "b", chosen_score=5.0, rejected_score=1.0, margin=9.0),
        row("a", None, chosen_score=7.0, weight=0.0),
        row(None, "e", rejected_score=1.0),
    ]
    example = draft(rows, "ranking")
    assert texts(example) == ["a", "b", "e", "c", "d"]  # by score where no pair says more; without one it is last
    assert example.scores == [5.0, 1.0, 1.0, None, 1.0]
    # Two pairs, and 5 over each 1; equal scores and one that is missing decide nothing.
    assert example.comparisons == [(0, 1), (0, 2), (0, 4), (3, 4)]
    assert example.weight == (2.0 + 1.0 + 0.0 + 1.0) / 4
    assert (example.margin, example.drawn_with) == (None, None)
    assert example.drawn == [None] * 5


def test_a_pair_may_contradict_the_scores_and_then_counts_beside_them() -> None:
    example = draft([row("a", "b", chosen_score=1.0, rejected_score=2.0)], "ranking")
    assert (texts(example), example.scores, example.comparisons) == (["a", "b"], [1.0, 2.0], [(0, 1)])


def test_the_tokenizer_of_drawn_responses_is_that_of_the_first_row_that_names_one() -> None:
    rows = [row("a", "b"), row("a", "c", drawn_with="w"), row("b", "c", drawn_with="v")]
    assert draft(rows, "ranking").drawn_with == "w"


@pytest.mark.parametrize(
    ("scores", "pairs", "order"),
    [
        ({"a": 1.0, "b": 2.0, "c": 3.0}, [], "cba"),
        ({"a": 1.0, "b": 1.0, "c": 1.0}, [], "abc"),
        ({"c": 1.0, "b": None, "a": None}, [], "cba"),
        ({"a": 0.0, "b": -1.0, "c": None}, [], "abc"),
        ({"a": 1.0, "b": 2.0, "c": 3.0}, [("a", "c")], "bac"),
        ({"a": None, "b": None, "c": None}, [("c", "a")], "bca"),
        ({"a": None, "b": None, "c": None}, [("c", "b"), ("b", "a"), ("c", "a")], "cba"),
        ({"a": 9.0, "b": 0.0, "c": 5.0, "d": 1.0}, [("b", "a")], "cdba"),
    ],
)
def test_orders_by_hand(scores: dict[str, float | None], pairs: list[tuple[str, str]], order: str) -> None:
    assert ranked(scores, pairs) == list(order)
