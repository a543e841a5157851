"""A whole run amid secrets leaves none of them in any of its files, nor in the off-line record of W&B."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from align import Evaluator, Policy, Preferences, Trainer, TrainerConfig
from align.cli.parse.command import read_command
from align.cli.parse.compose import compose_run
from align.errors import UserError
from align.sampling.params import SamplingParams
from align.scoring.from_config import read_settings
from align.system import redaction
from align.system.redaction import redact_streams
from methods import DPO
from tests.secrets_of_tests import SETTINGS, VARIABLES, WORDS, secret

ALL = [*(hidden for _, hidden in (*SETTINGS, *WORDS)), *VARIABLES.values()]


class Leaky:
    """Prints and logs a secret, as a client does that was given one."""

    name = "leaky"

    def score(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **_: Sequence[Any]
    ) -> list[list[float]]:
        del prompts
        for value in ALL[:5] + ALL[-5:]:
            print(f"asked with {value}")
            logging.getLogger("leaky").warning("asked with %s", value)
        return [[float(len(text)) for text in row] for row in responses]


def found_in(folder: Path) -> list[str]:
    """Each secret with the file it is in, also as JSON has it."""
    forms = {form.encode() for value in ALL for form in (value, json.dumps(value)[1:-1])}
    files = {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
    assert files
    return [
        f"{file.relative_to(folder)}: {form!r}" for file, content in files.items() for form in forms if form in content
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning")
def test_a_run_amid_secrets_leaves_none(
    tiny_policy: Policy, pair_rows: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(ALL) >= 50
    monkeypatch.setattr(redaction, "_learnt", set())
    monkeypatch.setattr(sys, "argv", ["run.py", *(word for words, _ in WORDS for word in words)])
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    redact_streams()
    rows = Preferences.from_rows([*pair_rows[:8], {**pair_rows[8], "chosen": f"It is {VARIABLES['HF_TOKEN']}."}])
    evaluator = Evaluator.from_preferences(
        tiny_policy, rows, rows, max_length=250, limit=2, scorers=[Leaky()], sampling=SamplingParams(max_new_tokens=4)
    )
    reward = {"scorer": "leaky", **{f"part {n}": settings for n, (settings, _) in enumerate(SETTINGS)}}
    trainer = Trainer(
        tiny_policy,
        tmp_path / "run",
        TrainerConfig(steps=2, batch_size=2, max_length=250, save_steps=1),
        trackers=("wandb",),
        run_config={
            "method": {"name": "dpo"},
            "reward": reward,
            "seed": 0,
            "words": [word for words, _ in WORDS for word in words],
        },
        inputs={"reward": reward},
    )
    trainer.fit(DPO(), rows, evaluator=evaluator)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.yaml", "inputs.json", "command.txt", "report.html", "final", "wandb", "checkpoints"} <= names
    assert list((tmp_path / "run").glob("wandb/offline-run-*/*.wandb"))
    assert not found_in(tmp_path)


def test_a_reward_file_takes_no_secret_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named where it is needed (token_env); other variables are taken."""
    monkeypatch.setenv("JUDGE_API_KEY", secret(70))
    monkeypatch.setenv("MODELS", "/models")
    monkeypatch.delenv("NOTHING", raising=False)
    file = tmp_path / "reward.yaml"
    file.write_text("scorer: function\nfunction: ${oc.env:MODELS}/a.py:f\nname: ${oc.env:NOTHING,mine}\n")
    assert read_settings(str(file)) == {"scorer": "function", "function": "/models/a.py:f", "name": "mine"}
    for text, sentence in (
        ("${oc.env:JUDGE_API_KEY}", r"JUDGE_API_KEY\}: this variable holds a secret.*token_env: JUDGE_API_KEY"),
        ("a ${oc.env:JUDGE_API_KEY,none} b", "this variable holds a secret"),
        ("${oc.decode:${oc.env:JUDGE_API_KEY}}", "this variable holds a secret"),
        ("${oc.env:NOTHING}", "the variable is not set; export it"),
    ):
        file.write_text(f"scorer: function\nfunction: {text}\n")
        with pytest.raises(UserError, match=sentence) as caught:
            read_settings(str(file))
        assert secret(70) not in str(caught.value)


def test_a_word_takes_no_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", secret(60))
    configs = Path(__file__).resolve().parents[3] / "configs"
    command = read_command(["method=dpo", "run_name=${oc.env:HF_TOKEN}"], configs)
    with pytest.raises(UserError, match="this variable holds a secret"):
        compose_run(configs, command.overrides)
