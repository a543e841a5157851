"""Short runs that the faults happen to: those of a tiny model, by the command, in processes of their own.

``ALIGN_FAULTS=1000`` makes the long form of each test: so many random kills, corruptions of checkpoints in proportion.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.programs import Command

TRIALS = int(os.environ.get("ALIGN_FAULTS", "0"))
"""How often the random tests of the long form try; 0: the short form."""

BASE = (
    *("trainer.steps=6", "trainer.batch_size=4", "trainer.save_steps=2", "trainer.eval_steps=3", "trainer.samples=0"),
    *("trainer.max_length=128", "evaluation.prompts=2", "evaluation.max_new_tokens=6", "evaluation.scorer=repetition"),
    *("data.heldout_size=6", "model.start=null"),
)
DRAWING = ("reward=function", "reward.function=rewards.py:short", "evaluation.scorer=auto")
METHODS: dict[str, tuple[str, ...]] = {
    "sft": ("method=sft", "adapter.dropout=0.1"),
    "dpo": ("method=dpo",),
    "kto": ("method=kto", "trainer.epochs=2", "trainer.steps=null"),
    "simpo": ("method=simpo",),
    "online_dpo": ("method=online_dpo", *DRAWING, "method.max_new_tokens=6"),
    "ppo": ("method=ppo", *DRAWING, "method.epochs=2", "method.minibatches=2", "method.max_new_tokens=6"),
    "rloo": ("method=rloo", *DRAWING, "method.max_new_tokens=6"),
    "grpo": ("method=grpo", *DRAWING, "method.max_new_tokens=6"),
    "rrhf": ("method=rrhf",),
    "slic": ("method=slic", "method.samples=2", "method.max_new_tokens=6", *DRAWING, "method.keep_unfinished=true"),
    "rft": ("method=rft", *DRAWING, "method.samples=2", "method.max_new_tokens=6", "method.keep_unfinished=true"),
    "reward": ("method=reward",),
    "ranker": ("method=ranker", "trainer.max_length=256"),
}


def write_inputs(folder: Path) -> None:
    """Pairs and a reward in a folder that a command is called in."""
    rows = [
        {
            "prompt": f"What is {i} + {i % 7}",
            "chosen": f"It is {i + i % 7}." + "!" * (i % 4),
            "rejected": "No" * (i % 3 + 1),
        }
        for i in range(24)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "rewards.py").write_text(
        "def short(prompts, responses, **columns):\n"
        "    return [[-float(len(set(text))) for text in row] for row in responses]\n"
    )


@pytest.fixture(scope="session")
def words(tiny_model: Path) -> Callable[..., list[str]]:
    """``words("dpo", "trainer.steps=4")``: what is typed for a short run, called ``run``."""

    def typed(method: str, *more: str) -> list[str]:
        given = [f"model={tiny_model}", "data=pairs.jsonl", *BASE, *METHODS[method], "run_name=run", *more]
        last = {word.partition("=")[0]: word for word in given}
        if last.get("reward", DRAWING[0]) != DRAWING[0]:
            del last[DRAWING[1].partition("=")[0]]
        return list(last.values())

    return typed


@pytest.fixture
def command(words: Callable[..., list[str]], tmp_path: Path) -> Callable[..., Command]:
    """``command("dpo", "if_exists=resume").start().wait()``."""
    write_inputs(tmp_path)

    def make(method: str, *more: str, **given: Any) -> Command:
        return Command(words(method, *more), given.pop("folder", tmp_path), **given)

    return make


@pytest.fixture(scope="session")
def whole(words: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``whole("sft")``: the folder of a run that nothing happens to, made when it is first asked for."""
    made: dict[tuple[str, ...], Path] = {}

    def of(method: str, *more: str) -> Path:
        if (method, *more) not in made:
            folder = tmp_path_factory.mktemp("whole")
            write_inputs(folder)
            command = Command(words(method, *more), folder)
            assert command.start().wait() == 0, command.said
            made[method, *more] = folder / "runs" / "run"
        return made[method, *more]

    return of
