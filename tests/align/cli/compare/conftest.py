"""A comparison on disk whose models were never trained: their records and measurements are written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align.cli.compare.contest import begin
from align.cli.compare.outcome import conclude
from align.cli.compare.stages import START, Stages, name_of
from align.cli.compare.words import Contender, read_comparison
from align.cli.parse import groups
from align.system.files import write_json

N = 40
"""Held-out prompts."""
SCORES = {"start": 0.0, "icl": 0.1, "sft": 0.2, "dpo": 0.5}
Begin = Callable[..., Stages]
NAMES = ("start", "icl", "sft", "dpo")


@pytest.fixture
def begin_comparison(tmp_path: Path, tiny_model: Path, pair_rows: list[dict[str, str]]) -> Callable[..., Stages]:
    """Begins a comparison of icl, sft and dpo on forty pairs, with further words."""

    def begin_with(*words: str) -> Stages:
        file = tmp_path / "pairs.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in pair_rows))
        given = {"methods": "[icl,sft,dpo]", "data": file, "model": tiny_model, "trainer.max_length": 128}
        place = {"output_root": tmp_path, "run_name": "mine", "evaluation.max_new_tokens": 16, "judge": "repetition"}
        settings = {**given, **place, **dict(word.split("=", 1) for word in words)}
        words = tuple(f"{key}={value}" for key, value in settings.items())
        return Stages(begin(read_comparison(words, groups.find_configs())))

    return begin_with


def measured(score: float, seed: int, **others: Any) -> dict[str, Any]:
    """The content of ``measured/*.json`` of a model with this mean score."""
    rng = np.random.default_rng([int(1000 * abs(score)), seed])
    common = np.random.default_rng(0).normal(0, 0.3, N)
    return {
        "prompts": [f"Prompt {i}" for i in range(N)],
        "responses": [f"Answer {i} of {score}" for i in range(N)],
        "scores": (score + common + rng.normal(0, 0.05, N)).tolist(),
        "lengths": [8] * N,
        "kl": [10 * abs(score)] * N,
        "preferred": [1.0] * N,
        "pair_prompts": [f"Prompt {i}" for i in range(N)],
        "chosen_loss": 2.0,
        "distinct_2": 0.5,
        "judge": "repetition",
        "max_new_tokens": 16,
        "notes": [],
        "start": {"name": "tiny", "start": None},
        "parameters": 1000,
        "pairs": [{"prompt": str(i), "scores": [float(i % 4 > 0), 0.5], "lengths": [9, 3]} for i in range(N)],
        **others,
    }


def write(stages: Stages, label: str, seed: int, content: dict[str, Any], *, name: str | None = None) -> None:
    """Record a run of 10 s that trained on 100 tokens, and its measurement."""
    contenders = {c.label: c for c in (START, *stages.contest.comparison.contenders)}
    contender: Contender = contenders[label]
    name = name or name_of(contender, seed)
    write_json(_made(stages.contest.folder / "measured") / f"{name}.json", content)
    if contender.method is not None:
        write_json(stages.pool.folder / f"{name}.json", {"code": 0, "seconds": 10.0, "peak_bytes": 2**30})
        metrics = _made(stages.contest.folder / "runs" / name) / "metrics.jsonl"
        metrics.write_text(json.dumps({"step": 1, "train/tokens": 100.0}) + "\n")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def outcome(stages: Stages, **contents: dict[str, Any] | None) -> dict[str, Any]:
    """Conclude with these measurements in place of the usual ones; None: it was not measured."""
    for label, score in SCORES.items():
        for seed in stages.contest.comparison.seeds:
            content = contents.get(label, measured(score, seed))
            if content is not None:
                write(stages, label, seed, content)
    conclude(stages)
    return json.loads((stages.contest.folder / "comparison.json").read_text())
