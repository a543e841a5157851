"""Rows to examples by hand: what each unit takes from a row, and rankings rebuilt from their pairs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.data import Preferences
from align.data.load_report import RowError
from align.data.pairs_and_rankings import Draft, PairsOf, draft, each_turn, group_rows, ranked, ranking_rows, repaired
from align.data.schema import Unit
from tests.align.data.conftest import Pair

PROMPT = [{"role": "user", "content": "q"}]


def row(chosen: str | None, rejected: str | None, **fields: Any) -> dict[str, Any]:
    sides = {"chosen": chosen, "rejected": rejected}
    messages = {name: text and [{"role": "assistant", "content": text}] for name, text in sides.items()}
    empty = dict.fromkeys(("chosen_score", "rejected_score", "margin", "weight", "tools", "ranking"))
    return {"prompt": PROMPT, **messages, **empty, **fields}


def said(*texts: str) -> list[Any]:
    return [{"role": "assistant", "content": text} for text in texts]


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
)


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("prompt", Draft(prompt=PROMPT, weight=0.0)),
        (
            "demonstration",
            Draft(prompt=PROMPT, responses=said("a"), drawn=[[1]], drawn_with="w", scores=[3.0], weight=0.0),
        ),
        *(
            (
                unit,
                Draft(
                    prompt=PROMPT,
                    responses=said("a", "b"),
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
    assert example.responses == said(
        "a", "b", "e", "c", "d"
    )  # by score where no pair says more; without one it is last
    assert example.scores == [5.0, 1.0, 1.0, None, 1.0]
    # Two pairs, and 5 over each 1; equal scores and one that is missing decide nothing.
    assert example.comparisons == [(0, 1), (0, 2), (0, 4), (3, 4)]
    assert example.weight == (2.0 + 1.0 + 0.0 + 1.0) / 4
    assert (example.margin, example.drawn_with) == (None, None)
    assert example.drawn == [None] * 5


def test_a_pair_may_contradict_the_scores_and_then_counts_beside_them() -> None:
    example = draft([row("a", "b", chosen_score=1.0, rejected_score=2.0)], "ranking")
    assert (example.responses, example.scores, example.comparisons) == (said("a", "b"), [1.0, 2.0], [(0, 1)])


def test_the_score_and_the_drawn_ids_of_a_response_are_the_first_that_a_row_gives() -> None:
    rows = [
        row("a", "b", rejected_drawn=[2]),
        row("a", "b", chosen_score=3.0, chosen_drawn=[1], rejected_drawn=[9]),
        row("a", "b", chosen_score=4.0, rejected_score=2.0, chosen_drawn=[8]),
    ]
    example = draft(rows, "ranking")
    assert (example.responses, example.scores, example.drawn) == (said("a", "b"), [3.0, 2.0], [[1], [2]])


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


def stored(values: list[int], *, scored: bool) -> list[dict[str, Any]]:
    """The rows of a ranking of as many responses as there are values."""
    made = ranking_rows([f"r{i}" for i in range(len(values))], [float(value) for value in values], scored=scored)
    return [row(one["chosen"], one["rejected"], ranking="k", prompt_id="p") | _scores(one) for one in made]


def _scores(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: fields[name] for name in ("chosen_score", "rejected_score") if name in fields}


@given(st.lists(st.integers(0, 3), min_size=2, max_size=6), st.booleans())
def test_a_ranking_survives_as_pairs(values: list[int], scored: bool) -> None:
    """Every two responses of different values are compared, no others; all of it weighs one prompt."""
    rows = stored(values, scored=scored)
    wanted = {(f"r{i}", f"r{j}") for i, a in enumerate(values) for j, b in enumerate(values) if a > b}
    if not wanted:
        assert not rows
        return
    example = draft(rows, "ranking")
    texts = [response["content"] for response in example.responses]
    assert {(texts[i], texts[j]) for i, j in example.comparisons} == wanted
    pairs = list(repaired(rows, "all", 0))
    assert {(one["chosen"][0]["content"], one["rejected"][0]["content"]) for one in pairs} == wanted
    assert sum(one["weight"] for one in pairs) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("all", ["01", "02", "03", "12", "13", "23"]),
        ("adjacent", ["01", "12", "23"]),
        ("best_worst", ["03"]),
    ],
)
def test_pairs_of_a_ranking_by_hand(kind: PairsOf, expected: list[str]) -> None:
    for scored in (True, False):
        found = [
            one["chosen"][0]["content"][1] + one["rejected"][0]["content"][1]
            for one in repaired(stored([9, 7, 5, 3], scored=scored), kind, 0)
        ]
        assert found == expected
    (one,) = repaired(stored([9, 7, 5, 3], scored=True), "best_random", 0)
    assert one["chosen"] == said("r0")


def test_good_and_bad_answers_of_one_prompt_become_pairs() -> None:
    rows = [row("a", None, prompt_id="p"), row(None, "b", prompt_id="p"), row(None, "c", prompt_id="p")]
    found = list(repaired(rows, "all", 0))
    assert [(one["chosen"], one["rejected"], one["weight"]) for one in found] == [
        (said("a"), said("b"), 0.5),
        (said("a"), said("c"), 0.5),
    ]
    assert list(repaired(rows[1:], "all", 0)) == rows[1:]


def test_each_turn_of_an_assistant_is_a_demonstration() -> None:
    turns = [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, "abcd", strict=True)]
    whole = row("e", "x", chosen_score=1.0) | {"prompt": [*turns, {"role": "user", "content": "q"}]}
    found = list(each_turn(whole))
    assert [(len(one["prompt"]), one["chosen"]) for one in found] == [(1, said("b")), (3, said("d")), (5, said("e"))]
    assert [one["rejected"] for one in found] == [None, None, said("x")]


def test_drawn_ids_stay_with_their_response_in_a_ranking(pair: Pair) -> None:
    """The order of the ranking is not that of the rows; of a response drawn in two rows the first ids count."""
    rows = [
        pair(0, chosen="b", rejected="c", chosen_drawn=[2], rejected_drawn=[3], drawn_with="w"),
        pair(0, chosen="a", rejected="b", chosen_drawn=[1], rejected_drawn=[9], drawn_with="w"),
        pair(0, chosen="c", rejected="d", chosen_drawn=None, rejected_drawn=None, drawn_with=None),
    ]
    example = draft(list(Preferences.from_rows(rows)), "ranking")
    assert [response["content"] for response in example.responses] == ["a", "b", "c", "d"]
    assert example.drawn == [[1], [2], [3], None]
    assert example.drawn_with == "w"


@given(st.permutations("abcde"), st.sets(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=8), st.data())
def test_order_is_consistent_with_every_pair(truth: list[str], picks: set[tuple[int, int]], data: Any) -> None:
    pairs = [(truth[i], truth[j]) for i, j in picks if i < j]
    scores = {text: data.draw(st.none() | st.integers(0, 3)) for text in "abcde"}
    order = ranked(scores, pairs)
    assert sorted(order) == list("abcde")
    assert all(order.index(better) < order.index(worse) for better, worse in pairs)


def test_pairs_in_a_circle_have_no_order() -> None:
    with pytest.raises(RowError, match="contradict"):
        ranked({"a": 1.0, "b": 0.0, "c": 0.0}, [("a", "b"), ("b", "c"), ("c", "a")])
