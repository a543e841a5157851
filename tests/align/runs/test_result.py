from __future__ import annotations

from pathlib import Path

from align.runs.result import TrainResult
from align.runs.tracker import Tracker
from align.system.files import write_json


def test_the_metrics_are_those_of_the_last_step_and_not_of_an_evaluation_after_it(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, enabled=True)
    for step in (1, 2, 3):
        tracker.log(step, {"train/loss": step / 10, "train/learning_rate": 0.0})
    tracker.log(3, {"heldout/loss": 9.0})
    found = TrainResult.read(tmp_path, 3)
    assert found == TrainResult(tmp_path, 3, {"step": 3, "train/loss": 0.3, "train/learning_rate": 0.0}, None)
    write_json(tmp_path / "evaluation.json", {"n": 1})
    assert TrainResult.read(tmp_path, 3).evaluation == {"n": 1}
