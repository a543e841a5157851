"""Curves and bars: what is on them, and where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from align.reporting import plots
from align.reporting.plots import bars_of, curves_of
from align.reporting.record import Record

Run = Callable[..., Path]


def test_bars_lie_between_zero_and_the_largest_bound() -> None:
    """Of values -1 and 3 the axis is 4 long: 0 is at 25 %."""
    found = plots._bars("m", "", [("before", -1.0, None), ("after", 3.0, None)])
    assert [(bar.start, bar.end, bar.is_before) for bar in found.bars] == [(0.0, 25.0, True), (25.0, 100.0, False)]


def test_before_and_after_of_one_run(run: Run) -> None:
    metrics = {found.name: found for found in bars_of([Record.read(run(text="s", scores=0.5))])}
    before, after = metrics["s"].bars
    assert (before.label, before.value, before.interval, before.count) == ("before", "0.250", "[0.250, 0.250]", "9")
    assert (after.value, before.end, after.end, after.low) == ("0.500", 50.0, 100.0, 100.0)
    won = metrics["win rate"]
    assert (won.mark, won.bars[0].value, won.bars[0].end) == (50.0, "1.000", 100.0)


def test_several_runs_share_the_start_and_have_a_bar_each(run: Run) -> None:
    records = [Record.read(run(name, text="s", scores=scores)) for name, scores in (("a", 0.5), ("b", 1.0))]
    metrics = {found.name: found for found in bars_of(records)}
    assert [(bar.label, bar.end) for bar in metrics["s"].bars] == [
        ("before", 25.0),
        ("a, after", 50.0),
        ("b, after", 100.0),
    ]


def test_a_curve_is_told_in_words_too(run: Run) -> None:
    found = {curve.name: curve for curve in curves_of([Record.read(run())])}
    assert list(found) == ["train/loss", "rollout/scores/text"]
    assert found["train/loss"].words == ["from 1 at step 1 to 0.025 at step 40; between 0.025 and 1"]
    assert found["train/loss"].svg.startswith("<svg")
    both = curves_of([Record.read(run("a")), Record.read(run("b"))])
    assert [words.partition(":")[0] for words in both[0].words] == ["a", "b"]


@pytest.mark.parametrize("count", [300, 301, 100_000])
def test_a_long_curve_keeps_its_extremes_and_few_points(count: int) -> None:
    values = [0.0] * count
    values[count // 3], values[count // 2] = 5.0, -5.0
    steps, kept = plots._extremes(range(count), values)
    assert {(count // 3, 5.0), (count // 2, -5.0)} <= set(zip(steps, kept, strict=True))
    assert steps == sorted(steps)
    assert len(steps) <= 300
