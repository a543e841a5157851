"""The command as a user types it, in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "transformers", "datasets", "accelerate", "peft", "trl", "wandb"}
SECONDS = 2.0


def run(*words: str, folder: Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "importtime", str(ROOT / "scripts" / "run.py"), *words],
        cwd=folder,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def imported(stderr: str) -> set[str]:
    names = re.findall(r"^import time: .*\| +([\w.]+)$", stderr, flags=re.MULTILINE)
    return {name.partition(".")[0] for name in names}


def said(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if not line.startswith("import time:")]


def seconds(*words: str, folder: Path) -> tuple[float, float]:
    """Time on a processor, which the command needs on a machine that does nothing else, and by the clock."""
    before = os.times()
    run(*words, folder=folder)
    after = os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return processor, after.elapsed - before.elapsed


def test_help_is_quick_and_lists_the_choices(tmp_path: Path) -> None:
    done = run("--help", folder=tmp_path)
    assert done.returncode == 0
    assert not imported(done.stderr) & HEAVY
    for word in ("dpo", "sft", "world", "qwen3-0.6b", "ultrafeedback", "lora", "trainer.learning_rate"):
        assert re.search(rf"^  {re.escape(word)} +\S", done.stdout, flags=re.MULTILINE), word


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["metod=dpo"], 'Did you mean "method"?'),
        (["method=dop"], 'Did you mean "dpo"?'),
        (["method.betta=0.1"], 'Did you mean "method.beta"?'),
        (["+method.betta=0.1"], 'Did you mean "method.beta"?'),
        (["trainer.learning_rate=nan"], "must be at least 0"),
        (["trainer.batch_size=0"], "must be at least 1"),
        (["run_name='a"], "cannot be read"),
        (["wandb.mode=online"], "add it, or leave wandb.mode out"),
        (["trackers=[wandb]", "wandb.mode=online"], "wandb.mode=offline"),
        (["trackers=[wandb,tensorbord]"], "trackers must be"),
        (["output_root=../elsewhere"], "without '..'"),
        (["-m", "seed=1,x"], "seed must be a whole number, not 'x'."),
    ],
)
def test_a_mistake_is_answered_before_anything_heavy_is_imported(
    words: list[str], expected: str, tmp_path: Path
) -> None:
    environment = {"HOME": str(tmp_path), "WANDB_API_KEY": "", "NETRC": str(tmp_path / "absent")}
    done = run(*words, folder=tmp_path, environment=environment)
    assert done.returncode == 2
    sentence, *offered = said(done.stderr)
    assert sentence.startswith("Error: ")
    assert expected in sentence
    assert [line.partition(": ")[0] for line in offered] == ["This would do"] * ("Did you mean" in expected)
    assert done.stdout == ""
    assert not imported(done.stderr) & HEAVY
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["--help"], ["method.betta=0.1"], ["-m", "method=sft,dpo", "seed=1,x"]])
def test_answers_take_less_than_two_seconds(words: list[str], tmp_path: Path) -> None:
    processor, clock = seconds(*words, folder=tmp_path)
    assert processor < SECONDS
    for _ in range(2):  # the machine may be busy with other tests
        clock = clock if clock < SECONDS * 2 else seconds(*words, folder=tmp_path)[1]
    assert clock < SECONDS * 2


def test_another_process_than_the_first_speaks_if_it_is_left_alone(tmp_path: Path) -> None:
    """Torchrun ends it as soon as the first one has failed of the same words; here there is none."""
    done = run("metod=dpo", folder=tmp_path, environment={"RANK": "1", "WORLD_SIZE": "2"})
    assert done.returncode == 2
    sentence, *_ = said(done.stderr)
    assert sentence.startswith("Process 1: Error: metod is not a setting")


def test_a_method_of_an_installed_package_is_found(tmp_path: Path) -> None:
    (tmp_path / "foreign.py").write_text(
        "from dataclasses import dataclass\n"
        "from methods import SFT\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Theirs(SFT):\n"
        "    gamma: float = 0.5\n"
    )
    package = tmp_path / "foreign-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[align.methods]\ntheirs = foreign:Theirs\n")
    environment = {"PYTHONPATH": str(tmp_path)}
    listed = run("--help", folder=tmp_path, environment=environment)
    assert re.search(r"^  theirs +registered by another package$", listed.stdout, flags=re.MULTILINE)
    typo = run("method=theirs", "method.gama=1", folder=tmp_path, environment=environment)
    sentence, *_ = said(typo.stderr)
    assert sentence == 'Error: method.gama is not a setting of method=theirs. Did you mean "method.gamma"?'
