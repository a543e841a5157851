"""A run that is stopped in the middle of a roll-out ends as one that was not."""

from __future__ import annotations

import json
import random
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from align import Policy, Preferences, Trainer, TrainerConfig
from align.diagnosis.course import Course
from align.diagnosis.rule import Finding
from align.runs.tracker import read_records
from align.settings.adapter import Adapter
from align.training import monitor
from methods import PPO
from tests.align.training.conftest import final
from tests.align.training.ppo_runs import Lengths, Rows, same, train
from tests.forked import Forked

pytestmark = pytest.mark.usefixtures("without_charts")


def test_a_run_resumes_exactly_at_every_step_of_a_rollout(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    whole = train(tiny_model, pair_rows, tmp_path / "whole", keep_checkpoints=20)
    before = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    for step in (1, 4, 7):  # in a roll-out, after it, and in the next
        folder = tmp_path / f"from-{step}"
        shutil.copytree(tmp_path / "whole", folder)
        shutil.rmtree(folder / "final")
        for checkpoint in (folder / "checkpoints").iterdir():
            if int(checkpoint.name[5:]) > step:
                shutil.rmtree(checkpoint)
        assert same(train(tiny_model, pair_rows, folder, if_exists="resume", keep_checkpoints=20), whole), step
        after = (folder / "metrics.jsonl").read_text().splitlines()
        for one, other in zip(map(json.loads, before), map(json.loads, after), strict=True):
            timeless = {name for name in one if "second" not in name}
            assert {name: one[name] for name in timeless} == {name: other[name] for name in timeless}


def test_a_rollout_left_early_stays_left_after_a_resume(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    def run(folder: Path, if_exists: Any) -> dict[str, torch.Tensor]:
        policy = Policy.load(str(tiny_model), adapter=Adapter(r=4))
        rate: Any = {"learning_rate": 1e-2, "schedule": "linear", "warmup": 0}
        config = TrainerConfig(steps=6, batch_size=8, max_length=200, save_steps=1, keep_checkpoints=9, **rate)
        method = PPO(max_new_tokens=8, missing_eos="none", epochs=4, target_kl=1e-12)  # left after its second step
        Trainer(policy, folder, config, if_exists=if_exists).fit(
            method, Preferences.from_rows(pair_rows), scorer=Lengths()
        )
        return final(folder)

    whole = run(tmp_path / "run", "new")
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    steps = [record["step"] for record in records]
    assert steps == [1, 2, 5, 6]
    falling = [1e-2 * (7 - step) / 6 for step in steps]  # the steps left out count
    assert [record["train/learning_rate"] for record in records] == pytest.approx(falling)
    shutil.rmtree(tmp_path / "run" / "final")
    for step in (3, 4, 5, 6):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step-{step:08d}")
    assert same(run(tmp_path / "run", "resume"), whole)
    assert [record["step"] for record in read_records(tmp_path / "run" / "metrics.jsonl")] == steps


def test_a_resumed_run_warns_of_what_the_whole_run_warns_of(
    tiny_model: Path,
    pair_rows: Rows,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of every roll-out, by the number of it."""

    def examine(course: Course) -> list[Finding]:
        scores = course.values("rollout/objective/scores")
        return [Finding(f"{len(scores)} roll-outs", f"the score was {scores[-1]}", ("wait",))]

    monkeypatch.setattr(monitor, "examine", examine)
    train(tiny_model, pair_rows, tmp_path / "run", keep_checkpoints=20, log_steps=20)
    warned = (tmp_path / "run" / "warnings.jsonl").read_text()
    lines = map(json.loads, warned.splitlines())
    assert [line["step"] for line in lines if "roll-outs" in line["name"]] == [1, 5, 9]
    assert "Warning: the score was" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "run" / "final")
    for checkpoint in (tmp_path / "run" / "checkpoints").iterdir():
        if int(checkpoint.name[5:]) > 6:
            shutil.rmtree(checkpoint)
    train(tiny_model, pair_rows, tmp_path / "run", if_exists="resume", keep_checkpoints=20, log_steps=20)
    assert (tmp_path / "run" / "warnings.jsonl").read_text() == warned
    assert capsys.readouterr().out.count("Warning: the score was") == 1


@pytest.mark.slow
def test_killed_twenty_times_it_ends_as_if_nothing_had_happened(
    tiny_model: Path, pair_rows: Rows, tmp_path: Path
) -> None:
    whole = train(tiny_model, pair_rows, tmp_path / "whole", save_steps=2)
    folder, metrics = tmp_path / "killed", tmp_path / "killed" / "metrics.jsonl"
    resume = partial(train, tiny_model, pair_rows, folder, if_exists="resume", save_steps=2)
    chance = random.Random(0)
    kills = 0
    while kills < 20:
        process = Forked(resume).start()
        before = metrics.read_text().count("\n") if metrics.exists() else 0
        while not process.ended and (not metrics.exists() or metrics.read_text().count("\n") <= before % 9):
            time.sleep(0.05)
        time.sleep(chance.random())
        kills += not process.ended
        process.kill()
        if (folder / "final").exists():
            assert same(resume(), whole)
            shutil.rmtree(folder)
    assert same(resume(), whole)
