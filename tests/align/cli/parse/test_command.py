from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from align.cli.parse.command import read_command
from align.data import Preferences
from align.errors import UserError

METHODS = ", ".join(sorted(path.stem for path in (Path(__file__).resolve().parents[4] / "configs/method").glob("*")))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["method=dop"], f'method=dop: choose from {METHODS}, or name FILE.py:CLASS. Did you mean "dpo"?'),
        (["model=wrld"], "model=wrld: choose from custom, llama-3.2-1b"),
        (["model=wrld"], 'or name your own with model.name=…. Did you mean "world"?'),
        (["adapter=lor"], 'adapter=lor: choose from dora, lora, none, rslora. Did you mean "lora"?'),
        (["preset=smok"], 'Did you mean "smoke"?'),
        (["-m", "method=dpo,sf"], f"method=dpo,sf: choose from {METHODS}, or name FILE.py:CLASS."),
        (["method"], "'method' is not a setting: write key=value. Did you mean \"method=\"?"),
        (["--halp"], "'--halp' is not an option; settings are written key=value. Did you mean \"--help\"?"),
        (["~trainer"], "'~trainer': a key cannot be removed"),
        (["~trainer.steps=3"], "a key cannot be removed"),
        (["run_name=a b'c"], "cannot be read: write key=value"),
        (["a b=c"], "cannot be read: write key=value"),
        (["trainer.betas=[1"], "cannot be read: write key=value"),
        (["method@other=dpo"], "write group=choice without a package"),
        (["seed=1,2"], "seed=1,2 gives several values: add -m"),
        (["trainer._target_=os.system"], "_target_ is not accepted"),
        (["trainer={_target_: os.system}"], "_target_ is not accepted"),
        (["hydra.launcher._target_=os.system"], "_target_ is not accepted"),
        (["hydra.job.chdir=true"], "hydra.job.chdir is fixed"),
        (["hydra/job_logging=default"], "hydra/job_logging is fixed"),
        (["run_name=\x1b[31m'"], "\\x1b[31m"),
        (["-m", "model=owner/a,owner/b"], "write model.name=owner/a,owner/b"),
    ],
)
def test_words_that_cannot_be_right(words: list[str], expected: str, configs: Path) -> None:
    with pytest.raises(UserError) as error:
        read_command(words, configs)
    assert expected in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("words", "overrides"),
    [
        (["seed=1"], ["seed=1"]),
        (["++seed=1", "+trainer.steps=2"], ["seed=1", "trainer.steps=2"]),
        (["model.name=owner/name"], ["model=custom", "model.name=owner/name"]),
        (["model=owner/name"], ["model=custom", "model.name=owner/name"]),
        (["model=qwen3-0.6b", "model.name=/a"], ["model=qwen3-0.6b", "model.name=/a"]),
        (["data=./pairs.jsonl"], ["data=custom", "data.train=./pairs.jsonl"]),
        (["data.train=a.jsonl", "data.split=x"], ["data=custom", "data.train=a.jsonl", "data.split=x"]),
        (["model='/with blank'"], ["model=custom", "model.name='/with blank'"]),
        (["preset=null"], ["preset=null"]),
    ],
)
def test_words_become_overrides(words: list[str], overrides: list[str], configs: Path) -> None:
    assert list(read_command(words, configs).overrides) == overrides


def test_a_file_in_this_folder_can_be_chosen_by_its_name(
    configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.jsonl").touch()
    assert read_command(["data=pairs.jsonl"], configs).overrides == ("data=custom", "data.train=pairs.jsonl")


def test_multirun_names_the_keys_with_several_values(configs: Path) -> None:
    command = read_command(["-m", "method=sft,dpo", "seed=range(1,3)", "trainer.steps=2"], configs)
    assert command.multirun
    assert command.swept == ("method", "seed")


def in_a_shell(typed: str) -> list[str]:
    """Return the words that a program gets when this is typed into bash."""
    return subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {typed}"], capture_output=True, text=True, check=True
    ).stdout.split("\0")[:-1]


@pytest.mark.parametrize(
    ("word", "value"),
    [
        (
            "data.columns={prompt: a[0].b, chosen: c.d, rejected: e}",
            {"prompt": "a[0].b", "chosen": "c.d", "rejected": "e"},
        ),
        ("data.columns={prompt: a[-1], chosen: b (c)}", {"prompt": "a[-1]", "chosen": "b (c)"}),
        ("data.columns={prompt: question[0]}", {"prompt": "question[0]"}),
        ("data.columns.prompt=a[0].b", "a[0].b"),
        ("data.columns.prompt='a[0].b", "a[0].b"),
    ],
)
def test_a_path_without_quotes_is_answered_with_the_quotes_it_needs(word: str, value: object, configs: Path) -> None:
    with pytest.raises(UserError) as error:
        read_command([word], configs)
    _, _, typed = str(error.value).partition("needs quotes: ")
    [given] = in_a_shell(typed)
    assert OverridesParser.create().parse_override(given).value() == value
    read_command([given], configs)


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected"),
    [
        ("question text", "good answer", "bad answer"),
        ("it's", "good", "bad"),
        ("task[0]", "good (gold)", "bad: one"),
        ("problem $HOME `ls`", "good \\ one", "bad !"),
        ('the "question"', "good, one", "bad {x}"),
        ("问题", "preferred", "dispreferred"),
        ("null", "good", "bad"),
    ],
)
def test_the_mapping_of_a_refusal_can_be_pasted(prompt: str, chosen: str, rejected: str, configs: Path) -> None:
    rows = [{prompt: f"Why {n}?", chosen: "Because of it.", rejected: "No idea."} for n in range(3)]
    with pytest.raises(UserError) as refusal:
        Preferences.from_rows(rows)
    [typed] = re.findall(r"data\.columns=.*", str(refusal.value))
    [given] = in_a_shell(typed)
    read_command([given], configs)
    columns: Any = OverridesParser.create().parse_override(given).value()
    data = Preferences.from_rows(rows, columns=columns)
    assert [row["prompt"][0]["content"] for row in data] == ["Why 0?", "Why 1?", "Why 2?"]
