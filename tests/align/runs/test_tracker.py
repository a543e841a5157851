"""Metrics, samples and warnings: what is written, read back and sent."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import wandb

from align.errors import UserError
from align.evaluation.measurement import Measurement, Sample
from align.runs.lineage import Artifact
from align.runs.tracker import Tracker, read_records
from align.settings.config import WandbConfig


class Service:
    """Stands for a run of W&B: it notes what it is sent."""

    id = "abc"

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.summary: dict[str, float] = {}

    def define_metric(self, name: str, *, step_metric: str | None = None, hidden: bool = False) -> None:
        self.sent.append((name, step_metric, hidden))

    def log(self, metrics: Any, step: int) -> None:
        self.sent.append((step, metrics))

    def alert(self, title: str, text: str) -> None:
        self.sent.append((title, text))

    def finish(self, exit_code: int) -> None:
        self.sent.append(exit_code)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    made = Service()
    monkeypatch.setattr(wandb, "init", lambda **settings: made.sent.append(settings) or made)
    monkeypatch.setattr(wandb, "Table", lambda columns, data: (columns, data))
    return made


def sample(source: str | None, score: float) -> Sample:
    return Sample(f"p {source}", "r", 3, 0.5, {"a": score, "b": -score}, source)


MEASURED = Measurement([sample("x", 1.0), sample("x", 2.0), sample("y", 3.0)], [1.0, 0.5, 0.0, 1.0, 0.5, 1.0])


def test_what_the_service_is_told_of_the_run(service: Service, tmp_path: Path) -> None:
    """Settings without secrets, the step as the horizontal axis of every phase; the id is kept."""
    settings = WandbConfig(project="p", entity="e", group="g", tags=("t", "u"))
    folder = tmp_path / "name"
    folder.mkdir()
    config = {"beta": 0.1, "api_key": "secret"}
    Tracker(folder, enabled=True, trackers=("wandb",), wandb=settings, config=config)
    given, *axes = service.sent
    del given["settings"]
    assert given == {
        "project": "p",
        "entity": "e",
        "group": "g",
        "tags": ["t", "u"],
        "name": "name",
        "dir": folder,
        "mode": "offline",
        "id": None,
        "resume": "allow",
        "config": {"beta": 0.1, "api_key": "***"},
    }
    assert axes == [
        ("step", None, True),
        *((f"{phase}/*", "step", False) for phase in ("train", "rollout", "heldout", "evaluation")),
    ]
    assert json.loads((folder / "trackers.json").read_text()) == {"wandb": "abc"}
    Tracker(folder, enabled=True, trackers=("wandb",))
    assert service.sent[6]["id"] == "abc"


@pytest.mark.parametrize(("enabled", "trackers"), [(False, ("wandb",)), (True, ())])
def test_the_service_is_not_asked_where_it_is_not_wanted(
    enabled: bool, trackers: Any, service: Service, tmp_path: Path
) -> None:
    Tracker(tmp_path, enabled=enabled, trackers=trackers, wandb=WandbConfig(mode="online"))
    assert service.sent == []


@pytest.mark.parametrize("error", [wandb.Error("no route"), OSError("no route")])
def test_a_service_that_is_not_there_is_said_once_and_stops_nothing(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def init(**_: Any) -> None:
        raise error

    monkeypatch.setattr(wandb, "init", init)
    tracker = Tracker(tmp_path, enabled=True, trackers=("wandb",), wandb=WandbConfig(mode="online"))
    tracker.log(1, {"train/loss": 1.0})
    assert read_records(tracker.metrics) == [{"step": 1, "train/loss": 1.0}]
    assert [record.message for record in caplog.records] == [
        "W&B could not be reached (no route); metrics.jsonl goes on alone."
    ]


def test_metrics_warnings_and_samples_are_written_and_sent(service: Service, tmp_path: Path) -> None:
    """A table of two samples has one of each source."""
    tracker = Tracker(tmp_path, enabled=True, trackers=("wandb",))
    service.sent.clear()
    tracker.log(1, {"train/loss": 0.5})
    tracker.warn(2, "kl", "too far")
    tracker.log_evaluation(3, MEASURED, shown=2)
    tracker.close(7)
    tracker.log(4, {"train/loss": 0.25})
    means = {
        "evaluation/a": 2.0,
        "evaluation/b": -2.0,
        "evaluation/kl": 0.5,
        "evaluation/response_length": 3.0,
        "evaluation/preference_accuracy": pytest.approx(4 / 6),
    }
    columns = ["prompt", "response", "tokens", "kl", "a", "b"]
    table = (columns, [["p x", "r", 3, 0.5, 1.0, -1.0], ["p y", "r", 3, 0.5, 3.0, -3.0]])
    assert service.sent == [
        (1, {"step": 1, "train/loss": 0.5}),
        ("kl", "too far"),
        (3, {"step": 3, **means}),
        (3, {"step": 3, "samples": table}),
        7,
    ]
    assert read_records(tracker.metrics) == [
        {"step": 1, "train/loss": 0.5},
        {"step": 3, **means},
        {"step": 4, "train/loss": 0.25},
    ]
    assert read_records(tracker.warnings) == [{"step": 2, "name": "kl", "warning": "too far"}]
    assert [(r["step"], r["prompt"], r["source"], r["scores"]["a"]) for r in read_records(tracker.samples)] == [
        (3, "p x", "x", 1.0),
        (3, "p x", "x", 2.0),
        (3, "p y", "y", 3.0),
    ]


def test_what_is_read_back_is_what_was_measured(tmp_path: Path) -> None:
    """The prompts of pairs by number, so that intervals are those that were measured."""
    tracker = Tracker(tmp_path, enabled=True)
    several = Measurement(MEASURED.samples, [1.0, 1.0, 0.5, 0.0, 0.0, 1.0, 1.0], ["b", "b", "a", "c", "c", "d", "d"])
    tracker.log_evaluation(0, several, shown=0)
    tracker.log_evaluation(5, Measurement([], [0.0]), shown=0)
    found = tracker.read_evaluations()
    assert list(found) == [0, 5]
    assert (found[0].samples, found[0].preferred) == (several.samples, several.preferred)
    assert found[0].pair_prompts == (0, 0, 1, 2, 2, 3, 3)
    assert found[0].estimates() == several.estimates()
    assert found[0].estimates() != Measurement(several.samples, several.preferred).estimates()
    assert found[5] == Measurement([], [0.0])
    assert tracker.read_evaluation(5) == found[5]


def test_samples_of_an_evaluation_that_was_cut_off_are_dropped_and_others_are_kept(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, enabled=True)
    for step in (0, 4, 8):
        tracker.log_evaluation(step, MEASURED, shown=0)
    records = [record for record in read_records(tracker.metrics) if record["step"] != 4]
    tracker.metrics.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert tracker.read_evaluation(4) is None
    assert [record["step"] for record in read_records(tracker.samples)] == [0] * 3 + [8] * 3


def test_a_resumed_run_forgets_what_came_after_its_checkpoint_in_all_files(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, enabled=True)
    for step in (1, 2, 3):
        tracker.log(step, {"train/loss": 1.0})
        tracker.warn(step, f"w{step}", "sentence")
        tracker.log_evaluation(step, MEASURED, shown=0)
    Tracker(tmp_path, enabled=False).truncate(0)  # another rank writes nothing
    tracker.truncate(2, evaluated=2)
    for file, each in ((tracker.metrics, 2), (tracker.warnings, 1), (tracker.samples, 3)):
        assert [record["step"] for record in read_records(file)] == [1] * each + [2] * each
    assert tracker.read_warnings() == {"w1", "w2"}


def test_a_metric_with_the_name_of_a_secret_is_still_a_number_when_the_file_is_written_again(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, enabled=True)
    for step in (1, 2):
        tracker.log(step, {"train/scores/secret": 0.5})
    tracker.truncate(1)
    assert read_records(tracker.metrics) == [{"step": 1, "train/scores/secret": 0.5}]


def test_an_evaluation_that_the_checkpoint_does_not_count_is_forgotten_and_its_step_is_kept(tmp_path: Path) -> None:
    """The run was stopped in the middle of it, or killed before ``best/`` was written."""
    tracker = Tracker(tmp_path, enabled=True)
    tracker.log_evaluation(0, MEASURED, shown=0)
    for step in (2, 4):
        tracker.log(step, {"train/loss": 1.0})
        tracker.log(step, {"heldout/loss": 1.0})
        tracker.log_evaluation(step, MEASURED, shown=0)
    tracker.truncate(4, evaluated=2)
    kept = [
        (record["step"], next(iter(record.keys() - {"step"})).split("/")[0]) for record in read_records(tracker.metrics)
    ]
    assert kept == [(0, "evaluation"), (2, "train"), (2, "heldout"), (2, "evaluation"), (4, "train")]
    assert [record["step"] for record in read_records(tracker.samples)] == [0] * 3 + [2] * 3


def test_a_line_may_be_cut_off_inside_a_character(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    file.write_bytes('{"step": 1, "a": "ö"}\n{"step": 1, "a": "ö'.encode()[:-1])
    assert read_records(file) == [{"step": 1, "a": "ö"}]


def test_other_ranks_write_nothing_at_all(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, enabled=False)
    tracker.log(1, {"train/loss": 1.0})
    tracker.warn(1, "kl", "too far")
    tracker.log_evaluation(1, MEASURED, shown=2)
    assert list(tmp_path.iterdir()) == []


def test_only_a_last_line_may_be_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert read_records(file) == []
    file.write_text('{"step": 1}\n\n{"step": 2}\n{"st')
    assert read_records(file) == [{"step": 1}, {"step": 2}]


@pytest.mark.parametrize("line", ['{"st', "[]", "1", "{}", '{"step": "3"}', '{"step": null}', "\udcff"])
def test_another_line_is_damaged(line: str, tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n', errors="surrogateescape")
    with pytest.raises(
        UserError, match=r"metrics\.jsonl: line 2 is damaged \(.*\); bring it back from a copy, or take"
    ):
        read_records(file)


def test_an_answer_that_is_damaged(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, enabled=True)
    tracker.log_evaluation(0, MEASURED, shown=0)
    with tracker.samples.open("a") as file:
        file.write('{"step": 0, "promt": "x"}\n')
    with pytest.raises(UserError, match=r"samples\.jsonl: line 4 is damaged"):
        tracker.read_evaluations()


def test_numbers_that_json_does_not_have_are_null_wherever_they_stand(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, enabled=True)
    tracker.log_evaluation(0, Measurement([Sample("é", "r", 1, math.nan, {"a": -math.inf})]), shown=0)
    (record,) = read_records(tracker.samples)
    assert (record["prompt"], record["kl"], record["scores"]) == ("é", None, {"a": None})
    assert "é" in tracker.samples.read_text(encoding="utf-8")


def test_the_end_of_a_run_is_summed_up_for_the_service(service: Service, tmp_path: Path) -> None:
    """Win rate with its interval, the best mean by each score, what the method reports, answers side by side."""
    tracker = Tracker(tmp_path, enabled=True, trackers=("wandb",))
    service.sent.clear()
    after = Measurement([sample("x", 4.0), sample("x", 2.0), sample("y", 1.5)])
    won = {"by": "a", "mean": 0.75, "low": 0.5, "high": 1.0, "n": 3, "runs": 1}
    own = {"accuracy": {"before": None, "after": 0.9}, "kl": {"before": 0.5, "after": 0.5}}
    tracker.log_results(9, {"win_rate": won, "metrics": own}, [MEASURED, after], shown=2)
    assert service.summary == {
        "result/win_rate": 0.75,
        "result/win_rate/low": 0.5,
        "result/win_rate/high": 1.0,
        "result/win_rate/n": 3.0,
        "result/best/a": 2.5,
        "result/best/b": -2.0,
        "result/best/preference_accuracy": pytest.approx(4 / 6),
        "result/after/accuracy": 0.9,
    }
    columns = ["prompt", "before", "after", "a before", "a after", "b before", "b after", "kl after"]
    rows = [["p x", "r", "r", 1.0, 4.0, -1.0, -4.0, 0.5], ["p y", "r", "r", 3.0, 1.5, -3.0, -1.5, 0.5]]
    assert service.sent == [(9, {"step": 9, "before_and_after": (columns, rows)})]


def test_an_artifact_that_is_not_taken_does_not_end_the_metrics(
    service: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Tracker(tmp_path, enabled=True, trackers=("wandb",), uses=[Artifact("a b", "dataset")])
    tracker.log(1, {"train/loss": 0.5})
    assert service.sent[-1] == (1, {"step": 1, "train/loss": 0.5})
    assert "W&B did not take a b" in caplog.text
