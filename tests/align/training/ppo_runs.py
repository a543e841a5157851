"""Short runs of PPO on a tiny model, in this process or in others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from align import Policy, Preferences, Trainer, TrainerConfig
from align.errors import ScorerError
from align.settings.adapter import Adapter
from methods import PPO

Rows = list[dict[str, str]]


class Lengths:
    """Characters of a response; may fail from some call on."""

    name = "lengths"

    def __init__(self, fails_at: int | None = None) -> None:
        self.calls, self.fails_at = 0, fails_at

    def score(self, _: Any, responses: Sequence[Sequence[str]], **__: Any) -> list[list[float]]:
        self.calls += 1
        if self.calls == self.fails_at:
            raise ScorerError("http://127.0.0.1:1 does not answer; start the server.")
        return [[len(text) / 10 for text in row] for row in responses]


def train(model: Path, rows: Rows, folder: Path, scorer: Any = None, **settings: Any) -> dict[str, torch.Tensor]:
    policy = Policy.load(str(model), adapter=Adapter(r=4, dropout=settings.pop("dropout", 0.1)))
    if_exists = settings.pop("if_exists", "new")
    config = {"steps": 10, "batch_size": 8, "learning_rate": 1e-2, "max_length": 200, "save_steps": 1} | settings
    method = PPO(
        max_new_tokens=8,
        epochs=2,
        minibatches=2,
        missing_eos="none",
        kl_target=1.0,
        kl_horizon=20.0,
        normalize_scores=True,
        ptx_coef=0.1,
        target_kl=0.02,
    )
    Trainer(policy, folder, TrainerConfig(**config), if_exists=if_exists).fit(
        method, Preferences.from_rows(rows), scorer=scorer or Lengths()
    )
    weights = load_file(folder / "final" / "adapter_model.safetensors")
    return weights | load_file(folder / "final" / "value" / "adapter_model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
