"""TensorBoard, trackio and MLflow: each has the metrics and the tables, and goes on with its run."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from align.evaluation.measurement import Measurement, Sample
from align.runs.tracker import Tracker
from align.settings.config import TrackerName, WandbConfig
from tests.chromium import CHROMIUM, browser

pytestmark = pytest.mark.filterwarnings("ignore")  # of packages that are not this project's
MEASURED = Measurement([Sample("p|q\nr", "answer", 3, 0.5, {"quality": 1.0})], [1.0])


def log(folder: Path, name: TrackerName, steps: range) -> None:
    """Log some steps as a run of its own would, the second time as one that is gone on with."""
    folder.mkdir(exist_ok=True)
    config = {"trainer": {"eps": 1e-8}, "api_key": "secret"}
    tracker = Tracker(folder, enabled=True, trackers=(name,), wandb=WandbConfig(project="p"), config=config)
    for step in steps:
        tracker.log(step, {"train/loss": 1 / step})
    tracker.log_evaluation(steps[-1], MEASURED, shown=1)
    tracker.log_results(steps[-1], {}, [MEASURED, MEASURED], shown=1)
    assert tracker._services  # pyright: ignore[reportPrivateUsage]
    tracker.close()


LOSSES = [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log(tmp_path / "r", "tensorboard", range(1, 3))
    log(tmp_path / "r", "tensorboard", range(3, 4))
    events = EventAccumulator(str(tmp_path / "r" / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == LOSSES
    assert [event.value for event in events.Scalars("result/best/quality")] == [1.0, 1.0]
    (table, _) = [event.tensor_proto.string_val[0].decode() for event in events.Tensors("samples/text_summary")]
    assert table.splitlines()[2] == r"| p\|q ↵ r | answer | 3 | 0.500 | 1.000 |"
    (settings,) = [event.tensor_proto.string_val[0].decode() for event in events.Tensors("config/text_summary")]
    assert settings == "    trainer.eps: 1e-08\n    api_key: ***"


@pytest.fixture(scope="module")
def trackio(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The package with a run of project ``p`` that was gone on with; its folder is read once, when it is imported."""
    folder = tmp_path_factory.mktemp("trackio")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(folder))
        package = pytest.importorskip("trackio")
        log(folder / "r", "trackio", range(1, 3))
        log(folder / "r", "trackio", range(3, 4))
        yield package


def test_trackio(trackio: Any) -> None:
    with sqlite3.connect(trackio.utils.TRACKIO_DIR / "p.db") as database:
        rows = database.execute("select run_name, step, metrics from metrics order by id").fetchall()
    assert {name for name, _, _ in rows} == {"r"}
    logged = [(step, json.loads(metrics)) for _, step, metrics in rows]
    assert [(step, found["train/loss"]) for step, found in logged if "train/loss" in found] == LOSSES
    (table, _) = [found["samples"]["_value"] for _, found in logged if "samples" in found]
    assert table == [{"prompt": "p|q\nr", "response": "answer", "tokens": 3, "kl": 0.5, "quality": 1.0}]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_trackio_s_own_page_shows_the_metrics_by_phase(trackio: Any, tmp_path: Path) -> None:
    app, url, *_ = trackio.show(project="p", open_browser=False, block_thread=False)
    try:
        with browser(tmp_path / "profile") as shown:
            shown.open(url, width=1200, dark=False)
            for text in ("train (1)", "loss", "evaluation (", "quality", "result ("):
                shown.wait_until(f"document.body.innerText.includes('{text}')", 30)
    finally:
        app.close()


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    log(tmp_path / "r", "mlflow", range(1, 3))
    log(tmp_path / "r", "mlflow", range(3, 4))
    (run,) = mlflow.search_runs(experiment_names=["p"], output_format="list")
    assert (run.info.run_name, run.info.status) == ("r", "FINISHED")
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == LOSSES
    assert run.data.params == {"trainer.eps": "1e-08", "api_key": "***"}
    table = mlflow.load_table("samples.json")
    assert list(table["step"]) == [2, 3]
    assert table["response"][0] == "answer"
