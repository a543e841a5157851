"""Scorers that fail or answer wrongly while a run draws: named, on all ranks, with the steps done saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from align.training.step import TrainingError
from tests.align.training.conftest import Launch
from tests.align.training.ppo_runs import SCRIPT, Lengths, Rows, same, train


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


FAILS_ON_ONE = """
import os
from align.training.step import TrainingError
from tests.align.training import ppo_runs as module
class Raises(module.Lengths):
    def score(self, prompts, responses, **columns):
        self.calls += 1
        if self.calls == 2 and os.environ["RANK"] == "1":
            raise ValueError("mine")
        return [[len(text) / 10 for text in row] for row in responses]
def train(*args, **settings):
    try:
        module.train(*args, scorer=Raises(), steps=5, **{**settings, "save_steps": None})
    except TrainingError as error:
        print("STOPPED", error, flush=True)
"""


def test_a_scorer_that_fails_on_one_of_two_ranks_stops_both(launch: Launch, tmp_path: Path) -> None:
    script = SCRIPT.replace("from tests.align.training.ppo_runs import train\n", FAILS_ON_ONE)
    process = launch(script, tmp_path / "run", ranks=2)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output[-3000:]
    assert output.count("STOPPED scorer 'lengths' failed at") == output.count("Step 4 is saved.") == 2
    assert (tmp_path / "run" / "checkpoints" / "step-00000004" / "manifest.json").exists()


@pytest.mark.parametrize("bad", [[[1.0]], [[float("nan")] * 1] * 8, [["0.5"]] * 8, [[1.0, 2.0]] * 8])
def test_scores_are_checked(bad: Any, tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    class Bad(Lengths):
        def score(self, *_: Any, **__: Any) -> list[list[float]]:
            return bad

    with pytest.raises(TrainingError, match=r"correct the scorer|must return one score per response"):
        train(tiny_model, pair_rows, tmp_path / "run", Bad())
