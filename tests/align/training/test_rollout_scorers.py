"""Scorers that fail or answer wrongly while a run draws: named, on all ranks, with the steps done saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from align.system.processes import Processes
from align.training.step import TrainingError
from tests.align.training.ppo_runs import Lengths, Rows, same, train
from tests.forked import on_ranks

pytestmark = pytest.mark.usefixtures("without_charts")


def test_a_scorer_that_fails_leaves_a_run_that_can_go_on(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    whole = train(tiny_model, pair_rows, tmp_path / "whole", save_steps=None)
    with pytest.raises(TrainingError, match=r"does not answer; start the server\. Step 4 is saved\. Continue with"):
        train(tiny_model, pair_rows, tmp_path / "failed", Lengths(fails_at=2), save_steps=None)
    assert same(train(tiny_model, pair_rows, tmp_path / "failed", if_exists="resume", save_steps=None), whole)


@pytest.mark.parametrize("fault", [ValueError("mine"), SystemExit(3), StopIteration("mine")])
def test_a_scorer_that_raises_is_named_by_its_line(
    fault: BaseException, tiny_model: Path, pair_rows: Rows, tmp_path: Path
) -> None:
    class Raises(Lengths):
        def score(self, _: Any, responses: Sequence[Sequence[str]], **__: Any) -> list[list[float]]:
            self.calls += 1
            if self.calls == 2:
                raise fault
            return [[len(text) / 10 for text in row] for row in responses]

    with pytest.raises(
        TrainingError, match=r"'lengths' failed at .*test_rollout_scorers\.py, line \d+, in score: .*Step 4 is saved\."
    ):
        train(tiny_model, pair_rows, tmp_path / "run", Raises(), steps=5, save_steps=None)
    assert (tmp_path / "run" / "checkpoints" / "step-00000004" / "manifest.json").exists()


class FailsOnOne(Lengths):
    def score(self, _: Any, responses: Sequence[Sequence[str]], **__: Any) -> list[list[float]]:
        if Processes().rank == 1 and self.calls == 1:
            raise ValueError("mine")
        return super().score(_, responses)


def stops(model: Path, rows: Rows, folder: Path) -> None:
    with pytest.raises(TrainingError, match=r"^scorer 'lengths' failed at [\s\S]*Step 4 is saved\."):
        train(model, rows, folder, FailsOnOne(), steps=5, save_steps=None)


def test_a_scorer_that_fails_on_one_of_two_ranks_stops_both(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    on_ranks(2, stops, tiny_model, pair_rows, tmp_path / "run")
    assert (tmp_path / "run" / "checkpoints" / "step-00000004" / "manifest.json").exists()


@pytest.mark.parametrize("bad", [[[1.0]], [[float("nan")] * 1] * 8, [["0.5"]] * 8, [[1.0, 2.0]] * 8])
def test_scores_are_checked(bad: Any, tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    class Bad(Lengths):
        def score(self, *_: Any, **__: Any) -> list[list[float]]:
            return bad

    with pytest.raises(TrainingError, match=r"correct the scorer|must return one score per response"):
        train(tiny_model, pair_rows, tmp_path / "run", Bad())
