"""The checked table of scores: what is recorded, what a part may leave out, and what nobody may."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from align.errors import ScorerError, UserError
from align.scoring.checked_scores import (
    check_scorers,
    deviations,
    record_scores,
    score,
    score_part,
    score_parts,
    score_texts,
)


@dataclass
class Fixed:
    """A scorer whose scores a test writes down; it notes what it is asked."""

    table: Any
    name: str = "fixed"
    asked: Any = None

    def score(self, *args: Any, **columns: Any) -> Any:
        self.asked = (args, columns)
        return self.table


class Partly(Fixed):
    def score_where_it_applies(self, *args: Any, **columns: Any) -> Any:
        return self.score(*args, **columns)


@dataclass
class Around:
    """A scorer that asks the one inside."""

    inner: Any
    name: str = "around"

    def score(self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **columns: Any) -> Any:
        return score_part("part", self.inner, prompts, responses, **columns)


class TestRecord:
    @pytest.fixture(autouse=True)
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each look at the clock is half a second after the last one."""
        ticks = iter(np.arange(1000) / 2)
        monkeypatch.setattr("align.scoring.checked_scores.time.perf_counter", lambda: float(next(ticks)))

    def test_sums_weights_and_times_by_hand(self) -> None:
        """Scores 1, 3, 5 in two calls of half a second: mean 3, 1,000 ms for three responses."""
        with record_scores() as log:
            score(Fixed([[1.0, 3.0]]), ["p"], [["a", "b"]])
            score(Fixed([[5.0]]), ["q"], [["c"]])
        assert log.values == {"fixed": [1.0, 3.0, 5.0]}
        assert log.seconds == {"fixed": 1.0}
        assert log.milliseconds() == {"fixed": pytest.approx(1000 / 3)}
        assert log.metrics() == {
            "scores/fixed": (9.0, 3),
            "scores/fixed/milliseconds": (1000.0, 3),
        }

    def test_parts_are_named_by_their_place_and_counted_where_they_apply(self) -> None:
        """The outer call is looked at before and after its inner ones, and takes their time too."""
        inner = Around(Around(Fixed([[0.0, 2.0]])))
        with record_scores() as log:
            score(inner, ["p"], [["a", "b"]])
            score_part("alone", Partly([[None, 4.0]]), ["p"], [["a", "b"]])
        assert log.values == {
            "around": [0.0, 2.0],
            "part": [0.0, 2.0],
            "part/part": [0.0, 2.0],
            "alone": [4.0],
        }
        assert log.seconds == {"part/part": 0.5, "part": 1.5, "around": 2.5, "alone": 0.5}

    def test_a_scorer_that_applied_nowhere_weighs_nothing(self) -> None:
        with record_scores() as log:
            score_part("part", Partly([[None]]), ["p"], [["a"]])
        assert log.metrics() == {
            "scores/part": (0.0, 0),
            "scores/part/milliseconds": (500.0, 0),
        }
        assert log.milliseconds() == {"part": 500.0}

    def test_deviations_are_of_all_logs_together(self) -> None:
        """1, 1 and 5, 5: 0 in each, 2 together. Of equal scores it is 0, where numpy's is 1e-17."""
        logs = [{"one": [1.0, 1.0], "same": [0.1] * 5}, {"one": [5.0, 5.0], "same": [0.1] * 2, "none": []}, {}]
        assert deviations(logs) == {"scores/one/std": 2.0, "scores/same/std": 0.0}
        assert np.std([0.1] * 7) > 0
        assert deviations([{"large": [1e15, -1e15]}]) == {"scores/large/std": pytest.approx(1e15)}

    def test_only_what_is_asked_inside_the_block_is_recorded(self) -> None:
        with record_scores() as outer:
            with record_scores() as log:
                score(Fixed([[1.0]]), ["p"], [["a"]])
            score(Fixed([[2.0]]), ["p"], [["a"]])
        score(Fixed([[3.0]]), ["p"], [["a"]])
        assert (log.values, outer.values) == ({"fixed": [1.0]}, {"fixed": [2.0]})


def test_a_score_of_zero_is_a_score() -> None:
    parts = {"a": Partly([[0.0, None], [1.0, 0.0]]), "b": Fixed([[2.0, 0.0], [3.0, 4.0]])}
    assert score_parts("mix", parts, ["p", "q"], [["x", "y"], ["z", "w"]]) == [
        [{"a": 0.0, "b": 2.0}, {"b": 0.0}],
        [{"a": 1.0, "b": 3.0}, {"a": 0.0, "b": 4.0}],
    ]


@pytest.mark.parametrize("table", [[[None, 1.0]], [[1.0, None]], [[None, None]]])
def test_every_response_needs_a_scorer(table: Any) -> None:
    with pytest.raises(ScorerError, match=r"^mix: no scorer applies to a response to prompt 0; add one"):
        score_parts("mix", {"a": Partly(table)}, ["p"], [["x", "y"]])


def test_only_a_scorer_that_says_so_may_leave_responses_out() -> None:
    assert score_part("a", Partly([[None, 1.0]]), ["p"], [["x", "y"]]) == [[None, 1.0]]
    with pytest.raises(ScorerError, match="'fixed' does not apply to response 0 of prompt 0"):
        score_part("a", Fixed([[None, 1.0]]), ["p"], [["x", "y"]])
    with pytest.raises(ScorerError, match="'fixed' does not apply to response 0 of prompt 0"):
        score(Partly([[None, 1.0]]), ["p"], [["x", "y"]])


def test_rows_become_texts_and_columns() -> None:
    messages = [{"role": "user", "content": "p"}]
    rows = [{"prompt": messages, "chosen": None, "answer": "7", "source": "s"}]
    scorer = Fixed([[1.0, 2.0]])
    assert score_texts(scorer, rows, [["a", "b"]]) == [[1.0, 2.0]]
    columns = {"messages": [messages], "chosen": [None], "answer": ["7"], "source": ["s"]}
    assert scorer.asked == ((["p"], [["a", "b"]]), columns)


def test_what_is_no_scorer_is_named() -> None:
    check_scorers(base=Fixed(None))
    with pytest.raises(UserError, match=r"^base='length' is not a scorer; write base: \{scorer: NAME\}"):
        check_scorers(base="length")


def test_a_score_too_large_to_be_squared_is_refused() -> None:
    """In float32 the variance of 1e38 and −1e38 is infinite, and every advantage 0."""
    assert score(Fixed([[1e15, -1e15]]), ["p"], [["a", "b"]]) == [[1e15, -1e15]]
    assert np.isfinite(np.square(np.array([1e15, -1e15] * 1000, dtype=np.float32)).sum())
    with pytest.raises(
        ScorerError, match=r"prompt 0, response 1: -1e\+38 is beyond ±1e\+15; let the scorer give smaller"
    ):
        score(Fixed([[1.0, -1e38]]), ["p"], [["a", "b"]])
