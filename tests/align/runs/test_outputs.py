"""The run folder, metrics, pictures and tables."""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from rich.console import Console

from align.errors import UserError
from align.evaluation.measurement import Measurement, Sample, compare
from align.model.policy import Policy
from align.runs import report
from align.runs import run_folder as runfolder
from align.runs.card import Origin
from align.runs.final_weights import write_final
from align.runs.tracker import Tracker, read_records
from align.settings.adapter import Adapter
from align.settings.config import WandbConfig
from align.system.charts import chart
from align.system.files import write_json
from align.world.shipped import FOLDER
from methods import DPO

ORIGIN = Origin("world", "abc", None, None, None)


class TestRunFolder:
    def test_new_counts_up_and_never_touches_what_is_there(self, tmp_path: Path) -> None:
        made = [runfolder.create(tmp_path / "run", "new") for _ in range(3)]
        assert [folder.name for folder in made] == ["run", "run-2", "run-3"]

    def test_overwrite_deletes_an_earlier_run_only(self, tmp_path: Path) -> None:
        folder = runfolder.create(tmp_path / "run", "new")
        runfolder.describe(folder, {"a": 1})
        (folder / "old").touch()
        assert not (runfolder.create(folder, "overwrite") / "old").exists()
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "chapter.tex").touch()
        for if_exists in ("overwrite", "resume"):
            with pytest.raises(UserError, match="holds files but no run"):
                runfolder.create(tmp_path / "thesis", if_exists)  # pyright: ignore[reportArgumentType]
        assert (tmp_path / "thesis" / "chapter.tex").exists()

    def test_secrets_are_redacted_everywhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.argv", ["run.py", "reward.api_key=hunter2", "reward.url=https://me:hunter2@host/x"])
        config = {"hf_token": "hunter2", "url": "http://u:hunter2@host", "trainer": {"tokens_per_microbatch": 8}}
        runfolder.describe(tmp_path, config)
        text = "".join(path.read_text() for path in tmp_path.iterdir())
        assert "hunter2" not in text
        assert "tokens_per_microbatch: 8" in text


class TestTracker:
    def test_a_resumed_run_logs_each_step_once(self, tmp_path: Path) -> None:
        tracker = Tracker(tmp_path, enabled=True)
        for step in range(1, 6):
            tracker.log(step, {"train/loss": step / 10})
        with tracker.metrics.open("a") as file:
            file.write('{"step": 6, "lo')  # killed in the middle of a line
        tracker.truncate(3)
        tracker.log(4, {"train/loss": 9.0})
        assert [(r["step"], r["train/loss"]) for r in read_records(tracker.metrics)] == [
            (1, 0.1),
            (2, 0.2),
            (3, 0.3),
            (4, 9.0),
        ]

    def test_a_broken_tracking_service_stops_nothing(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        class Broken:
            def log(self, *_: object, **__: object) -> None:
                raise ConnectionError("no route")

        tracker = Tracker(tmp_path, enabled=True)
        tracker._services["wandb"] = Broken()  # type: ignore[assignment]
        tracker.log(1, {"train/loss": 1.0})
        tracker.log(2, {"train/loss": 2.0})
        assert len(read_records(tracker.metrics)) == 2
        assert caplog.text.count("no route") == 1

    @pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
    def test_offline_it_needs_no_key(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("WANDB_MODE", raising=False)
        monkeypatch.delenv("WANDB_API_KEY", raising=False)
        tracker = Tracker(tmp_path, enabled=True, trackers=("wandb",), config={"beta": 0.1})
        tracker.log(1, {"train/loss": 1.0})
        tracker.close()
        assert list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))

    def test_other_ranks_write_nothing(self, tmp_path: Path) -> None:
        Tracker(tmp_path, enabled=False, trackers=("wandb",), wandb=WandbConfig(mode="online")).log(
            1, {"train/loss": 1.0}
        )
        assert not list(tmp_path.iterdir())


def measured(score: float) -> Measurement:
    return Measurement(
        [Sample(f"prompt {i}", "x[red]y\x1b[31m", 3, 0.1, {"true_reward": score}) for i in range(16)],
        [1, 1, 0.5, 0.5, 0],
    )


def test_tables_show_model_text_without_acting_on_it() -> None:
    out = StringIO()
    console = Console(file=out, width=100, force_terminal=False)
    before, after = measured(0.2), measured(0.8)
    report.print_samples(before.samples, after.samples, console, limit=2)
    report.print_evaluation(compare(before, after), console)
    text = out.getvalue()
    assert "\x1b" not in text
    assert "x[red]y\\x1b[31m" in text
    assert "prompt 1" in text
    assert "prompt 2" not in text
    assert "100.0%" in text


def test_curves_are_drawn_from_the_metrics(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, enabled=True)
    for step in range(1, 40):
        tracker.log(step, {"train/loss": 1 / step, "train/grad_norm": 1.0})
    tracker.log(39, {"heldout/loss": 0.1})
    report.plot_curves(tmp_path)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_an_evaluation_reads_back_only_when_it_was_written_to_its_end(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, enabled=True)
    tracker.log_evaluation(0, measured(0.5), shown=2)
    tracker.log_evaluation(4, measured(0.7), shown=2)
    assert tracker.read_evaluation(0) == measured(0.5)
    assert tracker.read_evaluation(4) == measured(0.7)
    lines = tracker.samples.read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0] * 16 + [4] * 16
    tracker.truncate(0)
    assert tracker.read_evaluation(4) is None
    tracker.metrics.unlink()  # killed between samples and means
    assert tracker.read_evaluation(0) is None
    assert tracker.samples.read_text() == ""


def titles(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Panels of ``curves.png`` and the bars in each."""
    found: dict[str, int] = {}

    @contextmanager
    def watched(*args: Any, **kwargs: Any) -> Generator[list[Any]]:
        with chart(*args, **kwargs) as axes:
            yield axes
            found.update({axis.get_title(): len(axis.patches) for axis in axes if axis.get_visible()})

    monkeypatch.setattr(report, "chart", watched)
    report.plot_curves(folder)
    return found


def test_before_and_after_are_bars_and_more_points_a_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Tracker(tmp_path, enabled=True)
    before, after = measured(0.2), measured(0.8)
    tracker.log_evaluation(0, before, shown=0)
    for step in (1, 2):
        tracker.log(step, {"train/loss": 1.0})
    tracker.log_evaluation(2, after, shown=0)
    assert titles(tmp_path, monkeypatch) == {
        "train/loss": 0,
        "evaluation/distinct_2": 2,
        "evaluation/kl": 2,
        "evaluation/preference_accuracy": 2,
        "evaluation/response_length": 2,
        "evaluation/true_reward": 2,
    }
    tracker.log_evaluation(3, after, shown=0)
    write_json(tmp_path / "evaluation.json", compare(before, after))
    drawn = titles(tmp_path, monkeypatch)
    assert drawn["evaluation/kl"] == 0
    assert drawn["win rate by true_reward"] == 1


@pytest.mark.parametrize("adapter", [Adapter(r=2), None], ids=["adapter", "whole model"])
def test_the_code_on_the_model_card_runs(
    adapter: Adapter | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = Policy.load("world/base", adapter=adapter)
    evaluation = compare(measured(0.2), measured(0.8))
    write_final(policy, tmp_path / "final", DPO(), {"name": "DPO", "beta": 0.1}, evaluation, ORIGIN)
    text = (tmp_path / "final" / "README.md").read_text()
    assert str(FOLDER) not in text
    card = ModelCard(text)
    assert card.data.base_model == "world/base"
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert (results["true_reward"], results["win_rate"]) == (pytest.approx(0.8), 1)  # of the model after training
    assert "| true_reward | 0.200 [0.200, 0.200] | 0.800 [0.800, 0.800] | 16 |" in text
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert len(capsys.readouterr().out) > 5  # an answer
    ids = scope["tokenizer"]("Is a cat an animal?", return_tensors="pt").input_ids
    assert torch.isfinite(scope["model"](ids).logits).all()


def test_a_base_in_a_folder_is_found_though_the_card_does_not_say_where_it_is(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = Policy.load(str(tiny_model), adapter=Adapter(r=2))
    write_final(policy, tmp_path / "run" / "final", DPO(), {"name": "DPO", "beta": 0.1}, None, ORIGIN)
    text = (tmp_path / "run" / "final" / "README.md").read_text()
    assert tiny_model.parent.name not in text
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path / "run")
    exec(code, {})
    assert capsys.readouterr().out


def test_texts_may_hold_any_line_separator(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, enabled=True)
    sample = Sample(prompt="a\u2028b\u2029\x85c", response="d\x0ce\r\nf\u2028", tokens=3, kl=None, scores={})
    tracker.log_evaluation(0, Measurement([sample]), shown=1)
    assert tracker.read_evaluations()[0].samples == [sample]
