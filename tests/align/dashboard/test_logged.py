"""The recorded names of metrics are those that runs of today log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from align.cli.main import main
from align.cli.parse.groups import find_configs
from align.dashboard.logged import read_runs

LOGGED = json.loads((Path(__file__).parent / "logged_names.json").read_text())
DRAWING = ("ppo", "rloo", "grpo")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "dpo", "rrhf", "slic", "reward", "ranker", *DRAWING])
def test_a_run_logs_the_recorded_names(method: str, tmp_path: Path) -> None:
    words = [f"method={method}", "preset=smoke", "trainer.eval_steps=2", "evaluation.scorer=true_reward"]
    words += ["reward=world"] if method in DRAWING else []
    assert main([*words, f"output_root={tmp_path}", "run_name=mine", "trackers=[wandb]"], find_configs()) == 0
    [run] = read_runs([tmp_path / "mine"])
    assert sorted(run.names) == LOGGED[method]
