"""A run on a few drawn candidates that takes seconds."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def drawing_words(tiny_model: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words of a run in an empty working folder, scored by ``short`` of ``rewards.py``, which is to be written."""
    monkeypatch.chdir(tmp_path)
    return [
        f"model={tiny_model}",
        f"data={pairs}",
        "data.max_rejected=0.1",
        "data.heldout_size=3",
        "reward=function",
        "reward.function=rewards.py:short",
        "method.max_new_tokens=6",
        "method.keep_unfinished=true",
        "adapter.r=2",
        "trainer.max_length=64",
        "trainer.steps=2",
        "trainer.batch_size=4",
        "evaluation.prompts=2",
        "evaluation.max_new_tokens=4",
        "run_name=run",
    ]
