"""Callbacks are told of what happens, in its order; a finished run is lengthened as if it had been longer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from align import Callback, Policy, Preferences, Trainer, TrainerConfig
from align.errors import UserError
from align.evaluation.evaluator import Evaluator
from align.evaluation.measurement import Measurement
from align.runs.result import TrainResult
from align.sampling.params import SamplingParams
from align.settings.adapter import Adapter
from align.training.step import TrainingError
from methods import SFT

pytestmark = pytest.mark.usefixtures("without_charts")


class Log(Callback):
    """A logger of one's own."""

    def __init__(self, fails_at: int = -1) -> None:
        self.told: list[Any] = []
        self.fails_at = fails_at

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        if step == self.fails_at:
            raise LookupError("mine")
        assert metrics["train/loss"] > 0
        self.told.append(step)

    def on_evaluation(self, step: int, measurement: Measurement) -> None:
        self.told.append(("evaluation", step, len(measurement.samples)))

    def on_checkpoint(self, step: int, folder: Path) -> None:
        assert (folder / "manifest.json").exists()
        self.told.append(("checkpoint", step))


def fit(
    model: Path, rows: list[dict[str, str]], folder: Path, log: Log, *, answers: bool = False, **settings: Any
) -> TrainResult:
    policy = Policy.load(str(model), adapter=Adapter(r=2))
    data = Preferences.from_rows(rows)
    given = {"schedule": "constant", "warmup": 0, "batch_size": 4, "max_length": 64, "save_steps": 2, "samples": 0}
    sampling = SamplingParams(max_new_tokens=2)
    evaluator = Evaluator.from_preferences(policy, data, None, max_length=64, limit=2, sampling=sampling)
    trainer = Trainer(policy, folder, TrainerConfig(**{**given, **settings}), if_exists="resume")
    return trainer.fit(SFT(), data, None, evaluator if answers else None, callbacks=[log])


def test_callbacks_are_told_in_order(tiny_model: Path, pair_rows: list[dict[str, str]], tmp_path: Path) -> None:
    log = Log()
    fit(tiny_model, pair_rows, tmp_path / "run", log, answers=True, steps=3, eval_steps=2)
    before, between, after = (("evaluation", step, 2) for step in (0, 2, 3))
    assert log.told == [before, 1, 2, between, ("checkpoint", 2), 3, ("checkpoint", 3), after]


def test_an_error_in_one_ends_the_run_saved(tiny_model: Path, pair_rows: list[dict[str, str]], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"in on_step: LookupError: mine; correct it\. Step 2 is saved"):
        fit(tiny_model, pair_rows, tmp_path / "run", Log(fails_at=2), steps=3)
    log = Log()
    fit(tiny_model, pair_rows, tmp_path / "run", log, steps=3)
    assert log.told == [3, ("checkpoint", 3)]


def test_a_finished_run_is_lengthened(tiny_model: Path, pair_rows: list[dict[str, str]], tmp_path: Path) -> None:
    short, log = tmp_path / "short", Log()
    fit(tiny_model, pair_rows, short, Log(), steps=2)
    assert fit(tiny_model, pair_rows, short, log, steps=2).steps == 2  # it is finished
    assert log.told == []
    assert fit(tiny_model, pair_rows, short, log, steps=4).steps == 4
    assert log.told == [3, 4, ("checkpoint", 4)]
    fit(tiny_model, pair_rows, tmp_path / "long", Log(), steps=4)
    one, other = (load_file(tmp_path / name / "final" / "adapter_model.safetensors") for name in ("short", "long"))
    assert all((one[name] == other[name]).all() for name in one)
    with pytest.raises(UserError, match="schedule is constant in the run and cosine now"):
        fit(tiny_model, pair_rows, short, Log(), steps=6, schedule="cosine")
