"""Reading what runs logged."""

from __future__ import annotations

from pathlib import Path

import pytest

from align.dashboard.logged import read_runs
from align.errors import UserError
from tests.align.dashboard.conftest import MakeRun


def test_a_run_is_read_with_all_that_w_and_b_has_of_it(make_run: MakeRun) -> None:
    (found,) = read_runs([make_run("one", group="g")])
    assert (found.id, found.project, found.entity, found.group) == ("r1", "p", None, "g")
    assert found.names == {
        *("train/epoch", "train/loss", "train/rewards/margins", "heldout/loss"),
        *("evaluation/quality", "evaluation/kl", "evaluation/response_length", "evaluation/preference_accuracy"),
        *("evaluation/right_pairs", "evaluation/tied_pairs", "evaluation/wrong_pairs"),
        *("result/win_rate", "result/win_rate/low", "result/win_rate/high", "result/win_rate/n"),
        *("result/best/quality", "result/best/preference_accuracy"),
    }
    assert found.tables == {"samples", "before_and_after"}


def test_the_folder_of_a_recipe_or_a_comparison_stands_for_its_runs(make_run: MakeRun, tmp_path: Path) -> None:
    for name in ("recipe/1-sft", "recipe/2-dpo", "comparison/runs/dpo-seed0"):
        make_run(name)
    found = read_runs([tmp_path / "recipe", tmp_path / "comparison"])
    assert [run.folder.name for run in found] == ["1-sft", "2-dpo", "dpo-seed0"]


def test_a_folder_that_is_no_run_or_that_w_and_b_does_not_know_is_named(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not the folder of a run, a recipe or a comparison"):
        read_runs([tmp_path])
    with pytest.raises(UserError, match=r"was not logged to W&B; train with trackers=\[wandb\]"):
        read_runs([make_run("unknown", run_id=None)])


def test_runs_of_two_projects_make_no_dashboard(make_run: MakeRun) -> None:
    runs = [make_run("one", project="p"), make_run("two", project="q")]
    with pytest.raises(UserError, match=r"your default entity/p, your default entity/q"):
        read_runs(runs)
