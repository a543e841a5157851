"""The report on a reward model's comparisons, by hand."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from align.evaluation.statistics import rate
from reward.training.calibration import Comparison, accuracy, assess, fit_temperature, plot_reliability

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


def test_ties_are_half_right_and_the_comparisons_of_a_prompt_are_one_group() -> None:
    """Of one prompt all are right, of the other none: an interval as of two observations, not of twenty."""
    found = accuracy([Comparison(delta=delta, prompt=i % 2, longer=0) for i, delta in enumerate([1.0, -1.0] * 10)])
    expected = rate([1.0, 0.0] * 10, [0, 1] * 10)
    assert found == expected != rate([1.0, 0.0] * 10)
    assert (found.mean, found.n) == (0.5, 20)
    assert accuracy([Comparison(delta=0.0, prompt=i, longer=0) for i in range(4)]).mean == 0.5


@pytest.mark.parametrize(("n", "fitted"), [(49, False), (50, True)])
def test_a_temperature_is_fitted_from_fifty_comparisons_on(n: int, fitted: bool) -> None:
    report = assess(right_of(n - 5, n, LN4))
    assert (report["temperature"] is not None) is fitted
    assert (report["expected_calibration_error_with_temperature"] is not None) is fitted
    assert report["comparisons"] == n
    assert report["interval"] == dataclasses.asdict(accuracy(right_of(n - 5, n, LN4)))


@pytest.mark.parametrize(
    ("delta", "right", "expected"),
    [
        (2 * LN4, 80, 2.0),  # σ(2 ln 4/T) = .8
        (LN4 / 50, 80, 1 / 50),
        (50 * LN4, 80, 50.0),
        (1.0, 100, 1 / 100),  # all right: the surer the better, to the bound
        (1.0, 40, 100.0),  # mostly wrong: never sure enough of nothing
    ],
)
def test_temperatures_from_a_hundredth_to_a_hundred(delta: float, right: int, expected: float) -> None:
    found = fit_temperature(np.array([delta] * right + [-delta] * (100 - right)))
    assert found == pytest.approx(expected, rel=2e-2)
    assert 1 / 100 <= found <= 100


def test_the_error_of_a_calibrated_model_stands_beside_that_of_this_one() -> None:
    """Of 20 that say .8 with 16 right the error is 0; by chance it is E|X − 16|/20 for X of the binomial (20, .8)."""
    report = assess(right_of(16, 20, LN4))
    chance = sum(math.comb(20, k) * 0.8**k * 0.2 ** (20 - k) * abs(k - 16) for k in range(21)) / 20
    assert report["expected_calibration_error"] == pytest.approx(0, abs=1e-12)
    assert report["calibration_error_if_calibrated"] == pytest.approx(chance, rel=0.1)


def test_equal_values_are_one_quartile_and_empty_ones_are_left_out() -> None:
    comparisons = [Comparison(delta=1.0 if i else -1.0, prompt=i, longer=0, gap=2.0) for i in range(8)]
    found = assess(comparisons)["accuracy_by"]["score_difference"]
    assert {name: (row["accuracy"], row["n"]) for name, row in found.items()} == {"2 to 2": (7 / 8, 8)}
    assert found["2 to 2"] == {
        "accuracy": 7 / 8,
        **{name: getattr(accuracy(comparisons), name) for name in ("low", "high", "n")},
    }
    assert assess(comparisons[:7])["accuracy_by"]["score_difference"] == {}


def test_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accuracy over confidence, the number of comparisons at each point."""
    drawn = MagicMock()
    places: list[Path] = []

    @contextmanager
    def chart(picture: Path, size: tuple[float, float]) -> Generator[tuple[Any]]:
        del size
        places.append(picture)
        yield (drawn,)

    monkeypatch.setattr("reward.training.calibration.chart", chart)
    report = assess([*right_of(16, 20, LN4), *right_of(3, 5, 0.1)])
    plot_reliability(report, tmp_path / "x.png")
    assert places == [tmp_path / "x.png"]
    diagonal, curve = (call.args for call in drawn.plot.call_args_list)
    assert diagonal == ([0.5, 1], [0.5, 1])
    sure = 1 / (1 + math.exp(-0.1))
    assert curve[0] == pytest.approx([sure, 0.8])
    assert curve[1] == pytest.approx([0.6, 0.8])
    assert [call.args[:2] for call in drawn.annotate.call_args_list] == [
        (5, (pytest.approx(sure), 0.6)),
        (20, (pytest.approx(0.8), 0.8)),
    ]
    (title,) = drawn.set_title.call_args.args
    low, high = report["interval"]["low"], report["interval"]["high"]
    assert title.startswith(f"accuracy 76.0% [{low:.1%}, {high:.1%}], 25 comparisons\ncalibration error ")
