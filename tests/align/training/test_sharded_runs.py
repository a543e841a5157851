"""Whole runs on two real ranks: a sharded base trains the same adapters, bit for bit, as a whole one on each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]

SCRIPT = """
import json, sys
from importlib.metadata import entry_points
from align import Adapter, Policy, Preferences, Trainer, TrainerConfig
from tests.align.training.vowels import Vowels, evaluator

_, model, rows, out, name, settings, how = sys.argv
rows, settings, how = json.load(open(rows)), json.loads(settings), json.loads(how)
(entry,) = entry_points(group="align.methods", name=name)

def run(folder, sharding, steps=6, if_exists="new"):
    method = entry.load()(**settings)
    early = {"sharding": sharding} if how.get("load") else {}
    policy = Policy.load(model, adapter=Adapter(r=4), dtype=how.get("dtype", "float32"), **early)
    data, heldout = Preferences.from_rows(rows), Preferences.from_rows(rows[:11])
    config = TrainerConfig(
        steps=steps, batch_size=how.get("batch_size", 7), learning_rate=1e-2, max_length=200, warmup=0,
        schedule="constant", tokens_per_microbatch=400, save_steps=3, sharding=sharding,
        eval_steps=how.get("eval_steps"),
    )
    measured = evaluator(policy, heldout) if "eval_steps" in how else None
    scorer = Vowels() if method.rollout is not None else None
    Trainer(policy, f"{out}/{folder}", config, if_exists=if_exists).fit(method, data, heldout, measured, scorer=scorer)

run("whole", "none")
run("sharded", "full")
if how.get("resume"):
    run("resumed", "full", steps=3)
    run("resumed", "full", if_exists="resume")
"""


@pytest.fixture
def run(tiny_model: Path, pair_rows: list[dict[str, str]], tmp_path: Path) -> Any:
    script, rows = tmp_path / "script.py", tmp_path / "rows.json"
    script.write_text(SCRIPT)
    rows.write_text(json.dumps(pair_rows))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def start(name: str, settings: dict[str, Any], how: dict[str, Any]) -> list[dict[str, bytes]]:
        launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
        words = [str(tiny_model), str(rows), str(tmp_path), name, json.dumps(settings), json.dumps(how)]
        command = [sys.executable, *launcher, str(script), *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        folders = [tmp_path / folder / "final" for folder in ("whole", "sharded", "resumed")]
        return [
            {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.safetensors"))}
            for folder in folders
            if folder.exists()
        ]

    return start


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings", "how"),
    [
        ("dpo", {}, {"resume": True, "load": True}),
        ("dpo", {"reference": "cached"}, {"batch_size": 1}),  # one rank has nothing
        ("dpo", {}, {"dtype": "bfloat16", "load": True}),
        ("sft", {}, {}),
        ("reward", {}, {}),
        ("rrhf", {}, {}),
        ("kto", {}, {}),
        ("ranker", {}, {}),
        ("ppo", {"max_new_tokens": 6, "ptx_coef": 1.0}, {"eval_steps": 2, "resume": True}),
        ("grpo", {"max_new_tokens": 6}, {"load": True}),
    ],
)
def test_a_sharded_run_is_a_whole_one(name: str, settings: dict[str, Any], how: dict[str, Any], run: Any) -> None:
    whole, *others = run(name, settings, how)
    assert whole
    assert len(others) == 1 + bool(how.get("resume"))
    for other in others:
        assert other == whole
