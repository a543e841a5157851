"""The command under the programs that start it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[4]
RUN = str(ROOT / "scripts" / "run.py")
BIN = Path(sys.executable).parent
TORCHRUN = [str(BIN / "torchrun"), "--standalone", "--nproc-per-node", "2", RUN]
ACCELERATE = [str(BIN / "accelerate"), "launch", RUN]


@pytest.fixture
def words(tiny_model: Path, pairs: Path) -> list[str]:
    return [
        "method=dpo",
        f"model={tiny_model}",
        f"data={pairs}",
        "data.max_rejected=0.1",
        "trainer.max_length=64",
        "trainer.batch_size=4",
        "evaluation.prompts=2",
        "evaluation.max_new_tokens=4",
        "run_name=first",
    ]


def _call(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_the_processes_of_a_launcher_make_one_run(launcher: list[str], words: list[str], tmp_path: Path) -> None:
    done = _call([*launcher, *words, "trainer.steps=2"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert [folder.name for folder in (tmp_path / "runs").iterdir()] == ["first"]
    assert done.stdout.count("Run folder:") == 1


@pytest.mark.slow
def test_several_processes_can_do_a_multirun_and_a_dry_run(words: list[str], tmp_path: Path) -> None:
    dry = _call([*TORCHRUN, *words, "dry_run=true"], tmp_path)
    assert dry.returncode == 0, dry.stderr
    assert dry.stdout.count("Dry run:") == 1
    assert list(tmp_path.iterdir()) == []
    done = _call([*TORCHRUN, "-m", "seed=1,2", *words, "trainer.steps=2"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(folder.name for folder in (tmp_path / "runs").iterdir()) == ["first-seed=1", "first-seed=2"]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_a_checkpoint_and_its_own_exit_code(
    number: signal.Signals, code: int, words: list[str], tmp_path: Path
) -> None:
    command = [sys.executable, RUN, *words, "trainer.steps=100000", "evaluation.prompts=0"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as run:
        metrics = tmp_path / "runs" / "first" / "metrics.jsonl"
        deadline = time.monotonic() + 300
        while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.2)
        run.send_signal(number)
        errors = run.communicate(timeout=120)[1]
    assert run.returncode == code
    assert "continue with run_name=first if_exists=resume" in errors
    assert "Traceback" not in errors
    assert list((tmp_path / "runs" / "first" / "checkpoints").glob("step-*/manifest.json"))


@pytest.mark.slow
def test_several_processes_draw_what_one_does(words: list[str], tmp_path: Path) -> None:
    """Also where one goes on with what two began: their first chunk has 128 of the 140 prompts."""
    (tmp_path / "rewards.py").write_text(
        "from pathlib import Path\n"
        "calls = []\n"
        "def short(prompts, responses, **columns):\n"
        "    calls.append(len(prompts))\n"
        "    assert not (Path('broken').exists() and sum(calls) > 65), 'broken'\n"  # one row tries it before all
        "    return [[-float(len(text)) for text in row] for row in responses]\n"
    )
    rows = [{"prompt": f"{i} and {i % 9}", "chosen": "Yes.", "rejected": "No."} for i in range(140)]
    (tmp_path / "prompts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    drawing = ["method=rrhf", "method.samples=2", "method.max_new_tokens=6", "method.keep_unfinished=true", words[1]]
    drawing += ["data=prompts.jsonl", "data.heldout_size=0", "trainer.max_length=64", "stage=sample"]
    drawing += ["reward=function", "reward.function=rewards.py:short"]

    def draw(launcher: list[str], name: str, *more: str) -> subprocess.CompletedProcess[str]:
        return _call([*launcher, *drawing, f"run_name={name}", *more], tmp_path)

    def drawn(name: str) -> bytes:
        return (tmp_path / "runs" / name / "candidates.jsonl").read_bytes()

    alone = [sys.executable, RUN]
    for name, launcher in (("one", alone), ("two", TORCHRUN)):
        done = draw(launcher, name)
        assert done.returncode == 0, done.stderr
    (tmp_path / "broken").touch()
    assert "128 of 140 prompts are in" in " ".join(draw(TORCHRUN, "moved").stderr.split())
    (tmp_path / "broken").unlink()
    done = draw(alone, "moved", "if_exists=resume", "resume_world_size=any")
    assert done.returncode == 0, done.stderr
    assert drawn("one") == drawn("two") == drawn("moved") != b""


def test_processes_that_are_to_do_different_things_do_nothing(words: list[str], tmp_path: Path) -> None:
    """As on two machines with a command each."""
    (tmp_path / "two.py").write_text(
        "import os, sys\n"
        "from pathlib import Path\n"
        "from align.cli.main import main\n"
        "more = ['trainer.learning_rate=0.5'] if os.environ['RANK'] == '1' else []\n"
        f"sys.exit(main([*sys.argv[1:], *more], Path({str(ROOT / 'configs')!r})))\n"
    )
    done = _call([*TORCHRUN[:-1], "two.py", *words], tmp_path)
    assert done.returncode != 0
    said = "not begun alike: trainer.learning_rate is not set in process 0 and 0.5 in process 1. Give each the same"
    assert said in " ".join(done.stderr.split())
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(words: list[str], tmp_path: Path) -> None:
    """From the middle of a roll-out, by one process and then by two; the result is that of one all along."""
    (tmp_path / "reward.py").write_text(
        "def short(prompts, responses, **columns):\n"
        "    return [[-len(text) / 100 for text in row] for row in responses]\n"
    )
    words = [word for word in words if not word.startswith(("method", "run_name", "evaluation"))]
    words += ["method=ppo", "reward=function", "reward.function=reward.py:short", "method.max_new_tokens=8"]
    words += ["method.epochs=2", "method.minibatches=2", "trainer.steps=7", "trainer.save_steps=1"]
    words += ["trainer.keep_checkpoints=9", "evaluation.prompts=0"]
    alone = [sys.executable, RUN]

    def run(command: list[str], name: str, *more: str) -> subprocess.CompletedProcess[str]:
        return _call([*command, *words, f"run_name={name}", *more], tmp_path)

    def back_to(step: int) -> None:
        shutil.rmtree(tmp_path / "runs" / "dealt" / "final")
        for folder in (tmp_path / "runs" / "dealt" / "checkpoints").iterdir():
            if int(folder.name[5:]) > step:
                shutil.rmtree(folder)

    def weights(name: str) -> dict[str, torch.Tensor]:
        return load_file(tmp_path / "runs" / name / "final" / "adapter_model.safetensors")

    for command, name in ((alone, "whole"), (TORCHRUN, "dealt")):
        done = run(command, name)
        assert done.returncode == 0, done.stderr
    back_to(2)
    refused = run(alone, "dealt", "if_exists=resume")
    assert "the number of processes is 2 in the run and 1 now" in " ".join(refused.stderr.split())
    for command, step in ((alone, 2), (TORCHRUN, 5)):
        back_to(step) if step > 2 else None
        done = run(command, "dealt", "if_exists=resume", "resume_world_size=any")
        assert done.returncode == 0, done.stderr
        assert f"Resuming after step {step} " in " ".join(done.stdout.split())
    assert "dropout draws other numbers: the number of processes is" in " ".join(done.stdout.split())
    ours, theirs = weights("dealt"), weights("whole")
    assert max((ours[name] - theirs[name]).abs().max().item() for name in theirs) < 1e-6
