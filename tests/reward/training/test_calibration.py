"""The report on a reward model's comparisons, by hand."""

from __future__ import annotations

import math

import pytest

from reward.training.calibration import Comparison, assess

LN4 = math.log(4)  # σ(ln 4) = .8


def right_of(right: int, n: int, delta: float) -> list[Comparison]:
    """Comparisons of this reward difference, of which some are ordered as labelled."""
    return [Comparison(delta=delta if i < right else -delta, prompt=i, longer=0) for i in range(n)]


@pytest.mark.parametrize(("right", "error"), [(16, 0.0), (12, 0.2), (20, 0.2)])
def test_the_calibration_error(right: int, error: float) -> None:
    """All say .8; .8, .6 and 1 of them are right."""
    report = assess(right_of(right, 20, LN4))
    assert report["accuracy"] == report["interval"]["mean"] == right / 20
    assert report["expected_calibration_error"] == pytest.approx(error)
    (point,) = report["reliability"]
    assert point == pytest.approx({"confidence": 0.8, "accuracy": right / 20, "n": 20})
    assert report["temperature"] is report["expected_calibration_error_with_temperature"] is None  # 20 are too few


def test_the_temperature_that_corrects_it() -> None:
    """Of 50 that say σ(2 ln 4) = 16/17, 40 are right: σ(2 ln 4/T) = .8 for T = 2."""
    report = assess(right_of(40, 50, 2 * LN4))
    assert report["expected_calibration_error"] == pytest.approx(16 / 17 - 0.8)
    assert report["temperature"] == pytest.approx(2, abs=1e-3)
    assert report["expected_calibration_error_with_temperature"] == pytest.approx(0, abs=1e-4)


def test_accuracy_by_group() -> None:
    """Differences of size 1 to 8, of which 1, 2 and 4 have the wrong sign; the annotator's were 80 to 10."""
    comparisons = [
        Comparison(
            delta=-size if size in (1, 2, 4) else size,
            prompt=size,
            longer=(-1, 0, 2)[size % 3],
            gap=90.0 - 10 * size,
            source="even" if size % 2 == 0 else None,
        )
        for size in range(1, 9)
    ]
    groups = {
        name: {group: (row["accuracy"], row["n"]) for group, row in rows.items()}
        for name, rows in assess(comparisons)["accuracy_by"].items()
    }
    assert groups == {
        "reward_difference": {"1 to 2.75": (0, 2), "2.75 to 4.5": (0.5, 2), "4.5 to 6.25": (1, 2), "6.25 to 8": (1, 2)},
        "score_difference": {"10 to 27.5": (1, 2), "27.5 to 45": (1, 2), "45 to 62.5": (0.5, 2), "62.5 to 80": (0, 2)},
        "length_difference": {
            "chosen is longer": (2 / 3, 3),  # 2, 5, 8
            "equally long": (1 / 3, 3),  # 1, 4, 7
            "chosen is shorter": (1, 2),  # 3, 6
        },
        "source": {"even": (0.5, 4)},
    }


def test_comparisons_without_a_score_have_no_quartile() -> None:
    gaps = (None, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.5)
    comparisons = [Comparison(delta=i + 1, prompt=i, longer=0, gap=gap) for i, gap in enumerate(gaps)]
    found = assess(comparisons)["accuracy_by"]["score_difference"]
    assert sum(group["n"] for group in found.values()) == 8
    assert assess(comparisons[:8])["accuracy_by"]["score_difference"] == {}
