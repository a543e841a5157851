"""Shares of held-out pairs counted by hand."""

from __future__ import annotations

import pytest

from align.comparison.judge import check_judge


def pair(scores: tuple[float, float], lengths: tuple[int, int], prompt: str) -> dict[str, object]:
    return {"prompt": prompt, "scores": scores, "lengths": lengths}


def test_accuracy_and_taste_for_length() -> None:
    """Right, wrong, tied, right: 2.5 of 4. Of three uneven pairs the judge prefers the longer in 1 + ½, labels in 2."""
    found = check_judge(
        [
            pair((2, 1), (9, 3), "a"),
            pair((1, 2), (9, 3), "b"),
            pair((1, 1), (3, 9), "c"),
            pair((2, 1), (5, 5), "d"),
        ]
    )
    assert found is not None
    assert found.accuracy.mean == pytest.approx(2.5 / 4)
    assert found.prefers_longer is not None
    assert found.prefers_longer.mean == pytest.approx(1.5 / 3)
    assert found.labels_prefer_longer is not None
    assert found.labels_prefer_longer.mean == pytest.approx(2 / 3)
    assert not found.is_better_than_chance
    assert "prefers the longer response in 50% of them, the labels in 67%" in str(found)


def test_a_judge_by_length_alone() -> None:
    found = check_judge([pair((i % 7 + 1, 0), (i % 7 + 1, 0), str(i)) for i in range(100)])
    assert found is not None
    assert found.is_better_than_chance
    assert found.prefers_longer is not None
    assert found.prefers_longer.mean == 1


def test_pairs_of_one_prompt_are_no_independent_evidence() -> None:
    many = check_judge([pair((1, 0), (1, 1), str(i % 4)) for i in range(100)])
    assert many is not None
    few = check_judge([pair((1, 0), (1, 1), str(i)) for i in range(4)])
    assert few is not None
    assert many.accuracy.low == few.accuracy.low
    assert many.prefers_longer is None


def test_nothing_is_said_without_pairs() -> None:
    assert check_judge(None) is None
    assert check_judge([]) is None
