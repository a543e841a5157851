"""Whole runs that train all parameters, sharded over real ranks: the weights of one process, at any number of ranks."""

from __future__ import annotations

import os
import signal
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from align import Policy, Preferences, Trainer, TrainerConfig
from tests.align.training.vowels import Vowels, evaluator
from tests.forked import on_ranks

Rows = list[dict[str, str]]
PPO = {"max_new_tokens": 6, "ptx_coef": 1.0}


class Killed:
    def __init__(self, at: int) -> None:
        self.at = at

    def on_step(self, step: int, _: Any) -> None:
        if step == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def train(model: Path, rows: Rows, folder: Path, name: str, settings: dict[str, Any], how: dict[str, Any]) -> None:
    (entry,) = entry_points(group="align.methods", name=name)
    method = entry.load()(**settings)
    kind = how.get("sharding", "full")
    policy = Policy.load(str(model), adapter=None, **({"sharding": kind} if how.get("load") else {}))
    data, heldout = Preferences.from_rows(rows), Preferences.from_rows(rows[:11])
    config = TrainerConfig(
        steps=how.get("steps", 6), batch_size=how.get("batch_size", 7), learning_rate=3e-4, eps=1e-6, warmup=0,
        schedule="constant", max_length=200, tokens_per_microbatch=400, save_steps=2, keep_checkpoints=9,
        sharding=kind, gradient_checkpointing=how.get("recompute", False), eval_steps=how.get("eval_steps"),
    )  # fmt: skip
    measured = evaluator(policy, heldout) if "eval_steps" in how else None
    again = {name: how[name] for name in ("if_exists", "resume_world_size") if name in how}
    scorer = Vowels() if method.rollout is not None else None
    callbacks: list[Any] = [Killed(how["killed_at"])] if "killed_at" in how else []
    trainer = Trainer(policy, folder, config, **again)
    trainer.fit(method, data, heldout, measured, scorer=scorer, callbacks=callbacks)


@pytest.fixture
def run(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> Any:
    def start(ranks: int, folder: str, name: str, settings: dict[str, Any] | None = None, **how: Any) -> Path:
        each = partial(on_ranks, ranks, train, tiny_model, pair_rows, tmp_path / folder, name, settings or {}, how)
        if "killed_at" in how:
            with pytest.raises(AssertionError, match="ended with exit code"):  # killed, or left by one that was
                each(seconds=400)
        else:
            each(seconds=400)
        return tmp_path / folder

    return start


def weights(run: Path) -> dict[str, torch.Tensor]:
    files = sorted((run / "final").rglob("*.safetensors"))
    return {f"{file.relative_to(run)}: {name}": t for file in files for name, t in load_file(file).items()}


def difference(one: Path, other: Path) -> float:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    return max((tensor - theirs[name]).abs().max().item() for name, tensor in ours.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings", "how"),
    [
        ("sft", {}, {}),
        ("dpo", {}, {"load": True}),
        ("dpo", {}, {"sharding": "node", "recompute": True}),
        ("dpo", {"reference": "cached"}, {"batch_size": 1}),  # one rank has nothing
        ("dpo", {"sync_steps": 2, "sync_weight": 0.5}, {}),
        ("reward", {}, {}),
        ("ppo", PPO, {"eval_steps": 2, "load": True}),
        ("grpo", {"max_new_tokens": 6}, {}),
    ],
)
def test_two_ranks_train_what_one_does(name: str, settings: dict[str, Any], how: dict[str, Any], run: Any) -> None:
    """With AdamW's ε=1e-8 the rounding of gradients as small as that is made large, by data-parallel ranks too."""
    one, two = (run(ranks, f"on-{ranks}", name, settings, **how) for ranks in (1, 2))
    assert difference(one, two) <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings"), [("dpo", {}), ("ppo", PPO)])
def test_a_killed_run_goes_on_bit_for_bit(name: str, settings: dict[str, Any], run: Any) -> None:
    whole, killed = run(2, "whole", name, settings), run(2, "killed", name, settings, killed_at=5)
    assert not (killed / "final").exists()
    run(2, "killed", name, settings, if_exists="resume")
    assert difference(whole, killed) == 0


@pytest.mark.slow
def test_a_run_goes_on_at_other_numbers_of_ranks_and_without_sharding(run: Any) -> None:
    one, moved = run(1, "one", "dpo"), run(2, "moved", "dpo", steps=2)
    more = {"if_exists": "resume", "resume_world_size": "any"}
    run(1, "moved", "dpo", steps=3, **more)
    run(3, "moved", "dpo", steps=4, **more)
    run(2, "moved", "dpo", steps=5, sharding="none", **more)
    run(2, "moved", "dpo", **more)
    assert difference(one, moved) <= 1e-6
    parts = {file.suffix for file in moved.rglob("checkpoints/*/parts/*")}
    assert parts == {".safetensors"}  # nothing is pickled
