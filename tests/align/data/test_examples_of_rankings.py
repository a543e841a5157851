"""Examples of rankings: put together from their pairs, and cut to max_length."""

from __future__ import annotations

from typing import Any

import pytest

from align.data import Preferences
from align.data.encoding import encode_response
from align.data.examples import tokenize
from tests.align.data.conftest import Pair


def test_ranking_is_put_together_from_its_pairs(chatml: Any, pair: Pair) -> None:
    rows = [
        pair(0, chosen="b", rejected="c", rejected_score=1.0, weight=0.5),
        pair(1),
        pair(0, chosen="a", rejected="b", chosen_score=3.0, answer="x"),
        pair(0, chosen="a", rejected="c"),
    ]
    tokenized = tokenize(Preferences.from_rows(rows), chatml, max_length=100, unit="ranking")
    assert len(tokenized) == 2
    example = tokenized[0]
    assert example.responses == [encode_response(chatml, text) for text in "abc"]
    assert example.scores == [3.0, None, 1.0]
    assert example.weight == pytest.approx(2.5 / 3)
    assert (example.index, tokenized[1].index) == (0, 1)


def test_ranking_that_contradicts_itself(chatml: Any, pair: Pair) -> None:
    rows = [pair(0, chosen="a", rejected="b"), pair(1), pair(0, chosen="b", rejected="a")]
    tokenized = tokenize(Preferences.from_rows(rows), chatml, max_length=100, unit="ranking", max_rejected=0.5)
    assert tokenized.report.rejected == {"pairs of the prompt contradict each other": 1}
    assert tokenized.report.examples["pairs of the prompt contradict each other"][0].startswith("rows:1")


def test_ranking_with_responses_that_are_cut_to_the_same(pad_is_eos: Any) -> None:
    worst, middle, best = "Z" * 40 + "a", "Z" * 40 + "b", "Y"
    rows = [{"prompt": "p", "chosen": best, "rejected": middle}, {"prompt": "p", "chosen": middle, "rejected": worst}]
    tokenized = tokenize(Preferences.from_rows(rows), pad_is_eos, max_length=20, unit="ranking")
    assert [len(response) for response in tokenized[0].responses] == [2, 19]
    assert tokenized[0].comparisons == [[0, 1]]


def test_a_ranking_of_which_responses_are_cut_to_the_same(pad_is_eos: Any) -> None:
    """Within 10 tokens two are one: it has the place and the score of the better, and is compared once."""
    long = "Z" * 12
    rows = [
        {"prompt": "p", "chosen": f"{long}1", "rejected": "low", "chosen_score": 3.0, "rejected_score": 1.0},
        {"prompt": "p", "chosen": "top", "rejected": f"{long}2", "chosen_score": 4.0, "rejected_score": 2.0},
    ]
    (example,) = tokenize(Preferences.from_rows(rows), pad_is_eos, max_length=11, unit="ranking")
    end = pad_is_eos.eos_token_id
    top, low = ([*pad_is_eos(text, add_special_tokens=False)["input_ids"], end] for text in ("top", "low"))
    cut = pad_is_eos(long, add_special_tokens=False)["input_ids"][:10]
    assert example.responses == [top, cut, low]
    assert example.scores == [4.0, 3.0, 1.0]
    assert example.comparisons == [[0, 1], [0, 2], [1, 2]]
    assert tokenize(Preferences.from_rows(rows), pad_is_eos, max_length=11, unit="ranking").lengths.tolist() == [
        1 + len(top) + 10 + len(low)
    ]
