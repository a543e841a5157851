"""A method works when it raises the true reward of the embedded world on held-out prompts, and only then."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align.evaluation.statistics import win_rate
from align.runs.tracker import read_records
from align.world import read_rows

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
SEEDS = (0, 1, 2)


def run(folder: Path, *overrides: str) -> Path:
    """Do a run with the default settings but for the overrides; returns its folder."""
    arguments = [f"output_root={folder}", "run_name=run", *overrides]
    done = subprocess.run(
        [sys.executable, "scripts/run.py", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    stages = sorted((folder / "run").glob("[0-9]-*"))  # a run of several stages has a folder for each
    return stages[-1] if stages else folder / "run"


def evaluation(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))


def differences(folder: Path) -> list[float]:
    """True reward after training minus before, prompt by prompt."""
    samples = read_records(folder / "samples.jsonl")
    last = max(sample["step"] for sample in samples)
    scores = [[s["scores"]["true_reward"] for s in samples if s["step"] == step] for step in (0, last)]
    return [after - before for before, after in zip(*scores, strict=True)]


def relabelled(file: Path, swapped: float) -> Path:
    """Write the training pairs with a share of them the wrong way round, chosen by prompt."""
    rng = random.Random(0)
    flip: dict[str, bool] = {}
    with file.open("w", encoding="utf-8") as lines:
        for row in read_rows("pairs.jsonl"):
            if flip.setdefault(row["prompt_id"], rng.random() < swapped):
                row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
                row["chosen_score"], row["rejected_score"] = -row["rejected_score"], -row["chosen_score"]
            lines.write(json.dumps(row) + "\n")
    return file


@pytest.mark.parametrize(
    ("method", "longest"),
    # SLiC-HF has no reference to hold it; on pairs its authors saw it grow in length as well (Zhao et al. 2023).
    [("dpo", 1.25), ("slic", 1.35), ("rrhf", 1.25), ("rft", 1.25), ("ppo", 1.25)],
)
def test_the_true_reward_rises(method: str, longest: float, tmp_path: Path) -> None:
    """Better than the SFT model beyond doubt; how much better is in docs/results.md."""
    folders = [run(tmp_path / str(seed), f"method={method}", f"seed={seed}") for seed in SEEDS]
    together = win_rate(np.array([differences(folder) for folder in folders]))
    assert together.low is not None
    assert together.low > 0.5
    for folder in folders:
        metrics = evaluation(folder)["metrics"]
        assert metrics["kl"]["after"] < 15
        assert metrics["response_length"]["after"] < longest * metrics["response_length"]["before"]


def test_a_run_without_learning_is_a_tie(tmp_path: Path) -> None:
    report = evaluation(run(tmp_path, "method=dpo", "trainer.learning_rate=0", "trainer.steps=3"))
    assert report["win_rate"]["low"] <= 0.5 <= report["win_rate"]["high"]
    assert report["metrics"]["kl"]["after"] == 0


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_wrong_labels_teach_nothing_good(tmp_path: Path, share: float) -> None:
    pairs = relabelled(tmp_path / "pairs.jsonl", share)
    data = [f"data.train={pairs}", "evaluation.scorer=true_reward"]
    report = evaluation(run(tmp_path, "method=dpo", *data))
    assert report["metrics"]["kl"]["after"] > 0.05  # it did learn something
    if share == 1.0:
        assert report["win_rate"]["high"] < 0.5
        assert report["metrics"]["true_reward"]["after"] < report["metrics"]["true_reward"]["before"]
    else:
        assert abs(report["metrics"]["kl"]["after"]) > 0.01  # it did learn, but nothing good
        assert report["win_rate"]["low"] <= 0.5
