"""Folders of runs as trackers leave them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from align.evaluation.measurement import Measurement, Sample
from align.runs.tracker import Tracker
from align.system.files import write_json

MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Make the folder of a run of preference optimisation that W&B knows."""

    def make(name: str, *, run_id: str | None = "r1", group: str | None = None, project: str = "p") -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        chosen = "null" if group is None else group
        (folder / "config.yaml").write_text(f"wandb: {{project: {project}, entity: null, group: {chosen}}}\n")
        if run_id is not None:
            write_json(folder / "trackers.json", {"wandb": run_id})
        tracker = Tracker(folder, enabled=True)
        samples = [Sample("p", "r", 3, 0.5, {"quality": 1.0})]
        tracker.log_evaluation(0, Measurement(samples, [1.0]), shown=0)
        tracker.log(1, {"train/epoch": 0.5, "train/loss": 0.7, "train/rewards/margins": 0.1, "heldout/loss": 0.7})
        tracker.log_evaluation(1, Measurement(samples, [1.0]), shown=0)
        won = {"by": "quality", "mean": 0.75, "low": 0.5, "high": 1.0, "n": 3, "runs": 1}
        write_json(folder / "evaluation.json", {"win_rate": won, "metrics": {}})
        return folder

    return make
