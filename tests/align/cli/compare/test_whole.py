"""Whole comparisons of a tiny model, as a user starts them: stopped, failing in part, repeated, within a budget."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from align.system.workers import core_count

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[4]
VARIES = ("seconds", "peak_bytes")
"""Measured anew in each run of a comparison."""


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, pair_rows: list[dict[str, str]]) -> list[str]:
    file = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in pair_rows))
    size = ["trainer.max_length=128", "trainer.batch_size=8", "evaluation.max_new_tokens=8", "seeds=1"]
    return [f"data={file}", f"model={tiny_model}", "judge=repetition", "methods=[sft,dpo]", *size]


@pytest.fixture
def begin(words: list[str]) -> Callable[..., subprocess.Popen[str]]:
    """Starts a comparison in a folder, with words that come after, and count instead of, the usual ones."""

    def start(folder: Path, *more: str) -> subprocess.Popen[str]:
        keys = {word.partition("=")[0] for word in more}
        given = [*(word for word in words if word.partition("=")[0] not in keys), *more]
        command = [sys.executable, str(ROOT / "scripts" / "compare.py"), *given, "run_name=c", f"output_root={folder}"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, text=True, env=environment, start_new_session=True, **pipes)  # pyright: ignore[reportCallIssue, reportArgumentType]

    return start


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    """Wait for the end and return all that was printed."""
    said, _ = process.communicate(timeout=900)
    assert process.returncode == code, said
    return " ".join(said.split())


def table(folder: Path) -> Any:
    """The outcome without what is measured anew, and without the folder's own name."""
    text = (folder / "c" / "comparison.json").read_text()
    for name in (str(folder), os.path.relpath(folder)):
        text = text.replace(name, "FOLDER")
    content = json.loads(text)
    for row in content["rows"]:
        row["cost"] = row["cost"] and {name: value for name, value in row["cost"].items() if name not in VARIES}
    content["answer"] = [sentence for sentence in content["answer"] if " took " not in sentence]
    return content


def test_stopped_it_goes_on_to_the_same_numbers_as_another_that_was_not(
    begin: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    more = ("frontier=true", "trackers=[wandb]", "adapter=none")
    ended(begin(whole, *more))
    process = begin(stopped, *more)
    first_steps = stopped / "c" / "runs" / "sft-seed0" / "metrics.jsonl"
    while not first_steps.exists() and process.poll() is None:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
    said = ended(process, 130)
    assert f"Stopped; the same command goes on with {stopped / 'c'}." in said
    assert "Traceback" not in said
    ended(begin(stopped, *more))
    assert table(stopped) == table(whole)
    rows = {row["label"]: row for row in table(whole)["rows"]}
    assert rows["dpo"]["kl"]["mean"] > 0  # without adapters too it is from the common start model
    assert len(table(whole)["frontier"]["dpo"]["points"]) == 5
    assert list(table(whole)["frontier"]) == ["dpo"]
    # W&B has a run for each training run, in one group, and one with the table.
    logged = [file.read_bytes() for file in (whole / "c").rglob("*.wandb")]
    assert len(logged) == 2 + 4 + 1
    assert sum(b"comparison.table.json" in content for content in logged) == 1


def test_a_method_that_fails_is_named_and_the_others_are_compared(
    begin: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    said = ended(begin(tmp_path, "methods=[sft,sft:trainer.learning_rate=1e30,dpo:loss_type=ipo]"), 1)
    assert "sft:trainer.learning_rate=1e30, seed 0 failed (" in said
    assert "Not compared: sft:trainer.learning_rate=1e30 failed with seed 0: " in said
    assert [row["label"] for row in table(tmp_path)["rows"]] == ["start", "sft", "dpo:loss_type=ipo"]


def test_a_budget_of_tokens_holds(begin: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    ended(begin(tmp_path, "budget=tokens:20000"))
    for row in table(tmp_path)["rows"][1:]:
        assert row["cost"]["tokens_trained"] == pytest.approx(20000, rel=0.15)


def test_a_budget_of_minutes_holds(begin: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """The length is foretold from a few steps, so the machine must be as busy then as later: not at all."""
    if os.getloadavg()[0] > core_count():
        pytest.skip("other programs keep the cores busy")
    ended(begin(tmp_path, "budget=minutes:0.75", "workers=1"))
    found = json.loads((tmp_path / "c" / "comparison.json").read_text())
    for row in found["rows"][1:]:
        assert row["cost"]["seconds"] == pytest.approx(45, rel=0.15)


def test_own_pairs_are_judged_by_a_reward_model_that_no_method_saw(
    begin: Callable[..., subprocess.Popen[str]], tmp_path: Path, shared: Path
) -> None:
    import gzip

    source = shared / "data" / "hh-rlhf-harmless-test" / "test.jsonl.gz"
    with gzip.open(source, "rt") as lines:
        short = [line for line in lines if len(line) < 900][:200]
    file = tmp_path / "own.jsonl"
    file.write_text("".join(short))
    model = shared / "models" / "stories260K"
    more = (f"data={file}", f"model={model}", "model.chat_template=hh", "judge=auto", "trainer.max_length=256")
    ended(begin(tmp_path, *more))
    found = table(tmp_path)
    assert found["judge"]["accuracy"]["n"] > 20
    assert any(
        said.startswith("The judge is a reward model trained on") and "rows that no method saw" in said
        for said in found["caveats"]
    )
    prompts = {
        part: {
            json.dumps(json.loads(line)["prompt"])
            for line in (tmp_path / "c" / "data" / f"{part}.jsonl").read_text().splitlines()
        }
        for part in ("train", "heldout", "judge")
    }
    assert not prompts["train"] & prompts["judge"]
    assert not prompts["train"] & prompts["heldout"]
    assert not prompts["judge"] & prompts["heldout"]
