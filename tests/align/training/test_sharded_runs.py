"""Whole runs on two real ranks: a sharded base trains the same adapters, bit for bit, as a whole one on each."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from align import Adapter, Policy, Preferences, Trainer, TrainerConfig
from tests.align.training.vowels import Vowels, evaluator
from tests.forked import on_ranks

Rows = list[dict[str, str]]


def train(model: Path, rows: Rows, out: Path, name: str, settings: dict[str, Any], how: dict[str, Any]) -> None:
    """Train one after another: whole, sharded, and sharded by a run that stops after half of its steps."""
    (entry,) = entry_points(group="align.methods", name=name)

    def run(folder: str, sharding: Any, steps: int = 6, if_exists: Any = "new") -> None:
        method = entry.load()(**settings)
        early = {"sharding": sharding} if how.get("load") else {}
        policy = Policy.load(str(model), adapter=Adapter(r=4), dtype=how.get("dtype", "float32"), **early)
        data, heldout = Preferences.from_rows(rows), Preferences.from_rows(rows[:11])
        config = TrainerConfig(
            steps=steps, batch_size=how.get("batch_size", 7), learning_rate=1e-2, max_length=200, warmup=0,
            schedule="constant", tokens_per_microbatch=400, save_steps=3, sharding=sharding,
            eval_steps=how.get("eval_steps"),
        )  # fmt: skip
        measured = evaluator(policy, heldout) if "eval_steps" in how else None
        scorer = Vowels() if method.rollout is not None else None
        Trainer(policy, out / folder, config, if_exists=if_exists).fit(method, data, heldout, measured, scorer=scorer)

    run("whole", "none")
    run("sharded", "full")
    if how.get("resume"):
        run("resumed", "full", steps=3)
        run("resumed", "full", if_exists="resume")


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.safetensors"))}


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
def test_a_sharded_run_is_a_whole_one(
    name: str, settings: dict[str, Any], how: dict[str, Any], tiny_model: Path, pair_rows: Rows, tmp_path: Path
) -> None:
    on_ranks(2, train, tiny_model, pair_rows, tmp_path, name, settings, how, seconds=400)
    whole = files(tmp_path / "whole" / "final")
    assert whole
    for other in ("sharded", "resumed") if how.get("resume") else ("sharded",):
        assert files(tmp_path / other / "final") == whole
