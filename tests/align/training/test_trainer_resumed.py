"""A run that was stopped, by a signal, a kill or a damaged checkpoint, ends as one that was not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from align import Policy
from align.errors import UserError
from align.runs.run_folder import alone
from align.runs.tracker import read_records
from align.settings.adapter import Adapter
from align.system.signals import Interrupted
from methods import DPO, SFT
from tests.align.training.conftest import final
from tests.align.training.dpo_runs import Rows, begin, largest_difference, train
from tests.charts import leave_out_charts
from tests.forked import Forked

pytestmark = pytest.mark.usefixtures("without_charts")
Weights = dict[str, torch.Tensor]
Finished = Callable[[Path], tuple[Path, Weights]]


def test_a_run_killed_before_its_first_checkpoint_logs_each_step_once(
    tiny_model: Path, pair_rows: Rows, tmp_path: Path
) -> None:
    config: dict[str, Any] = {"steps": 2, "save_steps": None}
    folder, weights = train(tiny_model, pair_rows[:8], tmp_path / "run", SFT(), **config)
    for name in ("final", "checkpoints"):
        shutil.rmtree(folder / name)
    _, again = train(tiny_model, pair_rows[:8], folder, SFT(), if_exists="resume", **config)
    assert largest_difference(weights, again) == 0
    assert [record["step"] for record in read_records(folder / "metrics.jsonl")] == [1, 2]


@pytest.fixture(scope="module")
def finished(tiny_model: Path, pair_rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A finished run of six steps, in a folder of its own for each test."""
    with pytest.MonkeyPatch.context() as patch:
        leave_out_charts(patch)
        folder, weights = train(tiny_model, pair_rows, tmp_path_factory.mktemp("finished") / "run")

    def copied(to: Path) -> tuple[Path, Weights]:
        return shutil.copytree(folder, to / "run"), weights

    return copied


class TestResume:
    def test_an_interrupted_run_ends_as_an_uninterrupted_one(
        self, tiny_model: Path, pair_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        adapter = Adapter(r=4, dropout=0.1)  # random numbers in every step
        _, straight = train(tiny_model, pair_rows, tmp_path / "straight", adapter=adapter)
        original, calls = DPO.loss, [0]

        def interrupting(self: DPO, policy: Policy, batch: Any) -> Any:
            calls[0] += 1
            if calls[0] == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(self, policy, batch)

        with monkeypatch.context() as patch:
            patch.setattr(DPO, "loss", interrupting)
            with pytest.raises(Interrupted) as caught:
                train(tiny_model, pair_rows, tmp_path / "cut", adapter=adapter)
        assert caught.value.exit_code == 143
        assert not (tmp_path / "cut" / "final").exists()
        folder, resumed = train(tiny_model, pair_rows, tmp_path / "cut", adapter=adapter, if_exists="resume")
        assert folder == tmp_path / "cut"
        assert largest_difference(straight, resumed) == 0
        steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert steps == [1, 2, 3, 4, 5, 6]

    @pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "no manifest"])
    def test_a_damaged_checkpoint_is_passed_over_and_named(
        self,
        damage: str,
        finished: Finished,
        tiny_model: Path,
        pair_rows: Rows,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        folder, straight = finished(tmp_path)
        file = folder / "checkpoints" / "step-00000006" / "optimizer.safetensors"
        data = bytearray(file.read_bytes())
        if damage == "flip":
            data[-5] ^= 1
            file.write_bytes(data)
        elif damage == "truncate":
            file.write_bytes(data[:-100])
        elif damage == "delete":
            file.unlink()
        else:
            (file.parent / "manifest.json").unlink()
        shutil.rmtree(folder / "final")  # its weights are those of the steps that are done again
        _, resumed = train(tiny_model, pair_rows, folder, if_exists="resume")
        assert "step-00000006 passed over" in capsys.readouterr().out.replace("\n", "")
        assert largest_difference(straight, resumed) == 0

    def test_a_run_that_another_process_is_at_is_refused(
        self, finished: Finished, tiny_model: Path, pair_rows: Rows, tmp_path: Path
    ) -> None:
        folder, _ = finished(tmp_path)
        with alone(folder), pytest.raises(UserError, match="run is in use by process"):
            train(tiny_model, pair_rows, folder, if_exists="resume")
        for _ in range(2):  # its end lets the folder go
            train(tiny_model, pair_rows, folder, if_exists="overwrite", steps=1)

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"learning_rate": 2e-2}, "resumed: trainer.learning_rate is 0.01 in the run and 0.02 now. Give"),
            ({"seed": 1}, "resumed: trainer.seed is 0 in the run and 1 now. Give"),
            ({"batch_size": 4}, "resumed: trainer.batch_size is 8 in the run and 4 now. Give"),
            ({"method": DPO(beta=0.2)}, "resumed: method.beta is 0.1 in the run and 0.2 now. Give"),
            ({"data": True}, "resumed: data.train is not the same. Give"),
        ],
    )
    def test_changed_settings_are_refused_by_name(
        self,
        change: dict[str, Any],
        named: str,
        finished: Finished,
        tiny_model: Path,
        pair_rows: Rows,
        tmp_path: Path,
    ) -> None:
        folder, _ = finished(tmp_path)
        rows = pair_rows[1:] if change.pop("data", False) else pair_rows
        with pytest.raises(UserError, match=named):
            train(tiny_model, rows, folder, **{"if_exists": "resume", **change})

    def test_a_run_of_an_earlier_version_is_refused_unless_it_is_finished(
        self, tiny_model: Path, pair_rows: Rows, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder, straight = train(tiny_model, pair_rows, tmp_path / "run", steps=2)
        file = folder / "checkpoints" / "step-00000002" / "manifest.json"
        manifest = json.loads(file.read_text())
        del manifest["version"]  # it had none, and other settings
        manifest["identity"]["method"]["was_called"] = "otherwise"
        file.write_text(json.dumps(manifest))
        file.with_suffix(".sha256").unlink()
        _, again = train(tiny_model, pair_rows, folder, steps=2, if_exists="resume")
        assert "This run is finished" in capsys.readouterr().out
        assert largest_difference(straight, again) == 0
        shutil.rmtree(folder / "final")
        with pytest.raises(
            UserError, match=r"run was begun by an earlier version of align, whose checkpoints have the format 1"
        ):
            train(tiny_model, pair_rows, folder, steps=2, if_exists="resume")

    def test_checkpoints_are_rotated(self, tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
        folder, _ = train(tiny_model, pair_rows, tmp_path / "run", keep_checkpoints=2)
        assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == ["step-00000004", "step-00000006"]


def has_logged(folder: Path, steps: int) -> bool:
    metrics = folder / "metrics.jsonl"
    return metrics.exists() and metrics.read_text().count("\n") >= steps


@pytest.mark.slow
def test_killed_outright_it_resumes_exactly(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    begin(tiny_model, pair_rows, straight)
    for steps in (3, 6):
        process = Forked(begin, tiny_model, pair_rows, killed, "resume").start()
        while not process.ended and not has_logged(killed, steps):
            time.sleep(0.002)
        process.kill()
    begin(tiny_model, pair_rows, killed, "resume")
    assert largest_difference(final(straight), final(killed)) == 0


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_checkpoints_and_exits_with_its_code(
    signum: int, code: int, tiny_model: Path, pair_rows: Rows, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = Forked(begin, tiny_model, pair_rows, folder, "new", 400).start()
    process.wait_until(lambda: has_logged(folder, 3))
    process.send(signum)
    assert process.wait(60) == code, process.said
    assert not (folder / "final").exists()
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert (folder / "checkpoints" / f"step-{last:08d}" / "manifest.json").exists()
