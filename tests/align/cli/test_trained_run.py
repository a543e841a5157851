"""A finished run is read back as it computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from align import Policy, Preferences, Trainer, TrainerConfig
from align.cli.trained_run import TrainedRun
from align.settings.adapter import Adapter
from methods import SFT


@pytest.mark.parametrize(("dtype", "layout"), [("bfloat16", "flat"), ("float32", "tree")])
def test_type_and_layout_are_those_of_the_run(
    dtype: str, layout: str, tiny_model: Path, pair_rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"dtype": dtype, "layout": layout}
    policy = Policy.load(str(tiny_model), adapter=Adapter(r=2), **settings)
    config = TrainerConfig(steps=1, batch_size=4, max_length=120, save_steps=None)
    run_config = {"model": {"name": str(tiny_model), **settings}, "trainer": {"seed": 0}, "seed": 5}
    trainer = Trainer(policy, tmp_path / "run", config, run_config=run_config)
    run = TrainedRun.find(str(trainer.fit(SFT(), Preferences.from_rows(pair_rows[:4])).folder))
    assert run is not None
    loaded = run.load()
    assert (loaded.model.dtype, loaded.layout) == (getattr(torch, dtype), layout)
    assert run.defaults == {"seed": 5}
