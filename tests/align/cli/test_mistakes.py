"""Every mistake of the table is answered by a sentence, before torch is needed, with no trace of a traceback."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from align.cli.main import main
from tests.align.cli.mistakes import MISTAKES, Mistake, write_files

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "absent"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    return tmp_path


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.words)
def test_a_mistake_is_answered(
    mistake: Mistake, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("align.cli.launch.execute._carry_out", None)  # which is where torch begins to be needed
    assert main(mistake.words.split(), ROOT / "configs") == 2

    told = capsys.readouterr()
    assert told.err.startswith("Error: ")
    assert "Traceback" not in told.err
    for part in mistake.says:
        assert part in told.err


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "words",
    [
        "method=dpo method.bta=1 method.beta=2",  # which one?
        "method=ipo method.loss_type=hinge",
        "method=dpo lr=1",  # of no section
        "method=dpo trainer.seed=1",  # of another section
        "method=ppo reward.method.bta=1",
        "-m method=dop,sft",
        "-m method.bta=1,2",
        "adapter.r=32",  # two ways out
        "method=dpo method.kl_coef=1",  # another program's, on another scale
        "trainer.bf16=true",
        "trainer.max_length=100000",
        "data=words",
    ],
)
def test_no_command_is_offered_that_may_not_be_meant(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split(), ROOT / "configs") == 2
    assert "This would do" not in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_a_setting_of_another_section_is_suggested_by_the_same_name_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["method=sft", "method.beta=1"], ROOT / "configs") == 2  # no "trainer.betas"
    assert capsys.readouterr().err == "Error: method.beta is not a setting of method=sft.\n"
    assert main(["method=sft", "trainer.temperature=1"], ROOT / "configs") == 2
    assert 'Did you mean "data.temperature" or "evaluation.temperature"?' in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_the_command_offered_begins_as_this_one_did(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/lib/align/__main__.py"])
    assert main(["method=dop"], ROOT / "configs") == 2
    assert re.search(r"\nThis would do: \S*python\S* -m align method=dpo\n", capsys.readouterr().err)


@pytest.mark.slow
def test_answers_are_quick(here: Path) -> None:
    """As whole processes, by the time on a processor, which is that of a machine that does nothing else."""
    seconds: dict[str, float] = {}
    for mistake in MISTAKES:
        before = os.times()
        done = subprocess.run(
            [sys.executable, "-X", "importtime", str(ROOT / "scripts" / "run.py"), *mistake.words.split()],
            cwd=here,
            capture_output=True,
            text=True,
            check=False,
        )
        after = os.times()
        seconds[mistake.words] = (
            after.children_user + after.children_system - before.children_user - before.children_system
        )
        assert done.returncode == 2, mistake.words
        assert " torch._C\n" not in done.stderr, f"{mistake.words} loads torch"
    assert statistics.median(seconds.values()) < 1.0
    assert max(seconds.values()) < 2.0
