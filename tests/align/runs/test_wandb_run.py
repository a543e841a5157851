"""Off-line runs of W&B itself, read back from its files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from align.dashboard.logged import read_runs
from align.dashboard.panels import layout
from align.evaluation.measurement import Measurement, Sample
from align.runs.lineage import Artifact
from align.runs.run_folder import begin
from align.runs.tracker import Tracker
from align.runs.wandb_run import WandbRun
from align.system.files import write_json
from tests.offline_wandb import history, records

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

MEASURED = Measurement([Sample("p", "r", 3, 0.5, {"quality": 1.0})], [1.0])


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Artifacts of off-line runs wait there."""
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))


def test_what_a_dashboard_draws_is_in_the_files_for_w_and_b(tmp_path: Path) -> None:
    """Metrics in the history, results in the summary, tables and artifacts by name."""
    folder = begin(tmp_path / "run", "new", {"wandb": {"project": "p"}})
    data = Artifact("data-1", "dataset", texts={"report.json": "{}"})
    tracker = Tracker(folder, enabled=True, trackers=("wandb",), uses=[data])
    tracker.log_evaluation(0, MEASURED, shown=1)
    tracker.log(1, {"train/loss": 0.7, "heldout/loss": 0.6, "rollout/objective/kl": 1.0})
    tracker.log_evaluation(1, MEASURED, shown=1)
    won = {"by": "quality", "mean": 0.75, "low": 0.5, "high": 1.0, "n": 3, "runs": 1}
    write_json(folder / "evaluation.json", {"win_rate": won, "metrics": {}})
    tracker.log_results(1, {"win_rate": won, "metrics": {}}, [MEASURED, MEASURED], shown=1)
    (folder / "final").mkdir()
    write_json(folder / "final" / "adapter_config.json", {})
    tracker.keep(folder / "final")
    tracker.close()

    (run,) = read_runs([folder])
    found = records(folder)
    logged = {name for item in history(folder) for name in item}
    summed = {name for record in found if record["type"] == "summary" for name in record["summary"]["update"]}
    drawn = [metric for section in layout(run.names) for panel in section.panels for metric in panel.metrics]
    assert {name for name in drawn if not name.startswith("result/")} <= logged
    assert {name for name in drawn if name.startswith("result/")} <= summed
    assert {f"{table}._type" for table in run.tables} <= logged
    assert [record["run"]["run_id"] for record in found if record["type"] == "run"] == [run.id]
    artifacts = {
        (record["artifact"]["name"], record["artifact"].get("use_after_commit", False))
        for record in found
        if record["type"] == "artifact" and record["artifact"]["type"] != "run_table"
    }
    assert artifacts == {("data-1", True), (f"model-{run.id}", False)}


_KILLED = """
import os, signal, sys
from pathlib import Path
from align.runs.tracker import Tracker
from tests.align.runs.test_wandb_run import MEASURED

tracker = Tracker(Path(sys.argv[1]), enabled=True, trackers=("wandb",))
tracker.log_evaluation(0, MEASURED, shown=1)
for step in (1, 2, 3, 4):
    tracker.log(step, {"train/loss": 1 / step})
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_as_the_same_with_all_that_came_before(tmp_path: Path) -> None:
    """W&B's own file of the killed process may hold nothing; what it lost is logged again, the checkpoint's step on."""
    own_service = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}  # not this process's
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path)], check=False, capture_output=True, env=own_service
    )
    assert done.returncode == -signal.SIGKILL
    (before,) = {record["run"]["run_id"] for record in records(tmp_path) if record["type"] == "run"} or {None}
    tracker = Tracker(tmp_path, enabled=True, trackers=("wandb",))
    tracker.truncate(3, shown=1)
    for step in (4, 5):
        tracker.log(step, {"train/loss": 1 / step})
    tracker.close()
    (after,) = {record["run"]["run_id"] for record in records(tmp_path) if record["type"] == "run"}
    assert after == json.loads((tmp_path / "trackers.json").read_text())["wandb"]
    assert before in (None, after)
    found = history(tmp_path)
    assert [(item["step"], item.get("train/loss")) for item in found] == [
        (0, None),
        *((step, pytest.approx(1 / step)) for step in (1, 2, 3, 4, 5)),
    ]
    assert found[0]["evaluation/quality"] == 1.0
    assert "samples._type" in found[0]
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 1


@pytest.mark.slow
def test_a_run_whose_first_part_was_sent_does_not_send_it_again(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, enabled=True, trackers=("wandb",))
    tracker.log(1, {"train/loss": 1.0})
    tracker.close()
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    file.with_suffix(".wandb.synced").touch()
    tracker = Tracker(tmp_path, enabled=True, trackers=("wandb",))
    tracker.truncate(1)
    tracker.log(2, {"train/loss": 0.5})
    tracker.close()
    assert [item["step"] for item in history(tmp_path)] == [1, 2]
    assert file.exists()


def test_the_end_of_a_run_waits_for_w_and_b_only_so_long(tmp_path: Path) -> None:
    """The rest lies in files of its own."""

    def finish(exit_code: int) -> None:
        assert exit_code == 3
        raise TimeoutError("timed out")

    ended: Any = WandbRun.__new__(WandbRun)
    ended.run = SimpleNamespace(dir=str(tmp_path / "run-1" / "files"), finish=finish)
    with pytest.raises(
        TimeoutError, match=rf"no answer within 300 s; send it later with `wandb sync {tmp_path}/run-1`"
    ):
        ended.finish(3)
