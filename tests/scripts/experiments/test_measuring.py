"""Arms of an experiment measured on their prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from experiments import measuring

from align.model.policy import Policy
from reward.verifiers.rules import Length


def test_the_loss_of_a_prompt_is_that_of_all_its_answers() -> None:
    nll, tokens = torch.tensor([6.0, 1.0, 2.0]), torch.tensor([2.0, 1.0, 2.0])
    assert measuring.loss_of_prompts(nll, tokens, ["b", "a", "b"]) == [2.0, 1.0]


def test_a_prompt_of_several_rows_is_one(tiny_policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is answered once and has one loss, so that intervals are over prompts."""
    monkeypatch.setattr(measuring, "_policy", lambda _: tiny_policy)
    monkeypatch.setattr(measuring, "_scorer", lambda _: Length(maximum=10))
    rows = [{"prompt": prompt, "chosen": chosen, "rejected": "no"} for prompt, chosen in ("ab", "cd", "ae")]
    file = tmp_path / "heldout.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = {"file": str(file), "scorers": ["length"], "temperature": 0.0, "max_new_tokens": 3, "loss": True}
    task: dict[str, Any] = {"shots": 0, "best_of": None, "seed": 0, "measures": {"pairs": settings}}
    found = measuring.measure(task)["pairs"]
    assert {name: len(found[name]) for name in ("score", "kl", "length", "loss")} == {
        "score": 2,
        "kl": 2,
        "length": 2,
        "loss": 2,
    }
