"""``-c FILE.yaml``: a run from its own ``config.yaml``, and from a part of one."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from align.cli.parse.command import read_command
from align.cli.parse.compose import compose_run, register_methods
from align.settings.config import RunConfig

CONFIGS = Path(__file__).resolve().parents[4] / "configs"


def run(*words: str) -> RunConfig:
    overrides = read_command(words, CONFIGS).overrides
    register_methods(CONFIGS, overrides)
    return compose_run(CONFIGS, overrides)


@pytest.mark.parametrize(
    "words",
    [
        ["method=dpo"],
        ["method=sft", "adapter=none", "model=world-base", "trainer.steps=3", "run_name='its, a [name]'"],
        ["method=ppo", "reward=math", "trackers=[wandb]", "wandb.tags=[a b,'c,d']", "trainer.betas=[0.8,0.9]"],
        [
            "method=dpo",
            "data=ultrafeedback",
            "data.columns.prompt='turns[0].value'",
            "data.heldout_columns={prompt: q}",
        ],
        ["method=dpo", "model.chat_template_kwargs.enable_thinking=false", "data.train=[world,owner/name]", "seed=7"],
    ],
)
def test_a_runs_own_configuration_is_that_run_again(words: list[str], tmp_path: Path) -> None:
    first = run(*words)
    file = tmp_path / "config.yaml"
    OmegaConf.save(OmegaConf.create({**first.plain(), "resolved": {"steps": 9}, "if_exists": "resume"}), file)
    again = run("-c", str(file))
    assert again == first
    assert run(f"--config={file}", "seed=11", "run_name=other").seed == 11


def test_words_come_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("method: sft\ntrainer: {epochs: 2, max_length: 64}\nmodel: {name: owner/name}\n")
    made = run("-c", str(file), "trainer.steps=5")
    assert (made.method, made.model.name, made.trainer.max_length) == ("sft", "owner/name", 64)
    assert (made.trainer.steps, made.trainer.epochs) == (5, None)
    other = run("-c", str(file), "model=world", "method=dpo")
    assert (other.method, other.model.name) == ("dpo", "world/base")


def test_a_method_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import dataclass\nfrom methods import SFT\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Mine(SFT):\n    gamma: float = 0.5\n"
    )
    made = run(f"method={file}:Mine", "method.gamma=2", "trainer.max_length=64")
    assert (made.method, made.settings["gamma"]) == (f"{file}:Mine", 2)
    saved = tmp_path / "config.yaml"
    OmegaConf.save(OmegaConf.create(made.plain()), saved)
    assert run("-c", str(saved)) == made
