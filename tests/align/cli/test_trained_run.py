"""A finished run is read back as it computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from align import Policy, Preferences, Trainer, TrainerConfig
from align.cli.trained_run import TrainedRun, require_models
from align.errors import UserError
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


def test_what_is_neither_a_run_nor_a_model_is_said_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(*files: str) -> None:
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text("a: 1\n")

    monkeypatch.chdir(tmp_path)
    put("runs/mine/config.yaml", "runs/mine/final/adapter_config.json", "runs/stopped/config.yaml", "notes/a.txt")
    put(*(f"runs/both/{file}" for file in ("compare.json", "runs/dpo/config.yaml", "runs/dpo/final/config.json")))
    put("runs/drawn/config.yaml", "runs/drawn/candidates.jsonl")
    put("model/config.json", "runs/recipe/sft/config.yaml", "runs/recipe/sft/final/config.json")
    require_models("runs/mine", "runs/mine/final", "model", "world/base", "runs/both/runs/dpo", None)
    for model, said in {
        "runs/nosuch": "there is no such run or model. Give the folder of a run",
        "runs/mne": 'there is no such run or model. Did you mean "runs/mine"?',
        "notes/a.txt": "there is no such run or model.",
        "runs/stopped": "is a run that has left no model yet; finish it with .* run_name=stopped if_exists=resume.",
        "runs/drawn": "has drawn candidates and trained nothing",
        "runs/both": "is a comparison; name one of its runs: runs/both/runs/dpo.",
        "runs/recipe": "holds several runs; name one of its runs: runs/recipe/sft.",
        "notes": "is the folder of neither a run nor a model",
        "nosuch": "there is no such run or model here, and none could be had from the hub. Give",
    }.items():
        with pytest.raises(UserError, match=rf"^{model}:? {said}"):
            require_models(model)
