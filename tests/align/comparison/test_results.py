"""The table of a comparison from scores that were made up."""

from __future__ import annotations

import json

import pytest

from align.comparison.results import Results, results
from tests.align.comparison.conftest import SEEDS, measured


def test_rows_are_means_over_prompts_and_seeds(clear: Results) -> None:
    row = clear.row("b")
    assert row.score.mean == pytest.approx(0.5 + clear.row("start").score.mean, abs=0.03)
    assert row.gain is not None
    assert row.gain.mean == pytest.approx(0.5, abs=0.03)
    assert row.kl is not None
    assert row.kl.mean == pytest.approx(0.2)
    assert row.tax == pytest.approx(0.02)
    assert row.accuracy is not None
    assert row.accuracy.mean == pytest.approx(0.7)
    assert 20 <= row.length.mean <= 24
    assert row.cut_off == pytest.approx(0.2, abs=0.06)  # lengths 20 … 24, one of five reaches 24
    assert [one["kl"] for one in row.by_seed] == pytest.approx([0.2] * 3)
    assert row.cost is not None
    assert row.cost.peak_bytes == 2**32


def test_the_start_model_is_compared_with_nothing(clear: Results) -> None:
    row = clear.row("start")
    assert (row.gain, row.win_rate, row.kl, row.tax, row.cost) == (None,) * 5


def test_the_matrix_is_the_rate_and_its_complement(clear: Results) -> None:
    assert clear.matrix["b"]["a"].mean > 0.95
    assert clear.matrix["a"]["b"].mean == pytest.approx(1 - clear.matrix["b"]["a"].mean)
    assert clear.p_pairs["a"]["b"] == clear.p_pairs["b"]["a"] < 0.05


def test_the_best_is_the_winner(clear: Results) -> None:
    assert clear.ranking.winner == "b"
    assert clear.ranking.order == ["b", "a", "start", "c"]


def test_a_contender_that_lacks_a_seed_is_left_out() -> None:
    tables = {
        label: {seed: measured(0, seed, number=i) for seed in SEEDS} for i, label in enumerate(["start", "a", "b"])
    }
    del tables["b"][2]
    found = results(tables, {}, start="start", max_new_tokens=24)
    assert [row.label for row in found.rows] == ["start", "a"]


def test_it_can_be_written_as_json(clear: Results) -> None:
    assert json.loads(json.dumps(clear.plain()))["prompts"] == 120
