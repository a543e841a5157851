"""The commands after a run: as they can be typed, for what was trained."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from align.cli.compare.words import read_comparison
from align.cli.launch.next_steps import next_steps


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.executable", str(tmp_path / ".venv" / "bin" / "python"))


def commands(folder: str, method: str, *, answers: bool = True) -> list[str]:
    return [line.strip() for line in next_steps(Path(folder), method, answers=answers).splitlines()[2::2]]


def test_a_script_is_followed_by_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["scripts/run.py", "method=dpo", "method.beta=0.2", "seed=1", "run_name=a b"])
    assert commands("runs/a b", "dpo") == [
        f".venv/bin/python -m webbrowser {(tmp_path / 'runs').as_uri()}/a%20b/report.html",
        ".venv/bin/python scripts/chat.py 'runs/a b'",
        ".venv/bin/python scripts/compare.py 'methods=[dpo:beta=0.2,icl]' seed=1",
    ]


@pytest.mark.parametrize(
    ("started", "follows"), [("/usr/bin/align", "align"), ("/x/align/__main__.py", ".venv/bin/python -m align")]
)
def test_the_installed_command_is_followed_by_itself(
    started: str, follows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [started, "method=sft"])
    assert commands("runs/a", "sft")[1:] == [f"{follows} chat runs/a", f"{follows} compare 'methods=[sft,icl]'"]


@pytest.mark.parametrize("words", [["recipe=rlhf"], ["-m", "method=sft,dpo"], ["method.sources=[a,b]"]])
def test_a_recipe_several_runs_and_lists_are_not_compared(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/align", *words])
    assert len(commands("runs/a", "ppo")) == 2


def test_who_does_not_answer_is_not_talked_to() -> None:
    assert len(commands("runs/a", "reward", answers=False)) == 1


def test_the_comparison_is_accepted_as_printed(configs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/align", "method=dpo", "method.beta=0.2", "preset=smoke"])
    words = shlex.split(commands("runs/a", "dpo")[2])
    found = read_comparison(words[2:], configs)
    assert [(contender.method, contender.words) for contender in found.contenders] == [
        ("dpo", ("method.beta=0.2",)),
        (None, ()),
    ]
