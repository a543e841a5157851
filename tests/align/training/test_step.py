"""One step: the gradient's norm is bounded before the update."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from align import Policy, Preferences, Trainer, TrainerConfig
from align.runs.tracker import read_records
from align.settings.adapter import Adapter
from methods import SFT

Rows = list[dict[str, str]]


@pytest.mark.parametrize("bound", [1e-3, 1e9])
def test_the_gradient_is_clipped_to_its_norm(bound: float, tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    """With SGD at rate 1 a step moves the weights by the clipped gradient: min(its norm, the bound)."""
    policy = Policy.load(str(tiny_model), adapter=Adapter(r=4))
    before = {name: p.detach().clone() for name, p in policy.roles.parameters("policy").items()}
    config = TrainerConfig(steps=1, batch_size=8, learning_rate=1.0, optimizer="sgd", warmup=0, max_length=200)
    config = TrainerConfig(**{**vars(config), "max_grad_norm": bound, "schedule": "constant"})
    folder = Trainer(policy, tmp_path / "run", config).fit(SFT(), Preferences.from_rows(pair_rows)).folder
    after = policy.roles.parameters("policy")
    moved = torch.cat([(after[name] - before[name]).flatten() for name in before]).norm().item()
    (record,) = read_records(folder / "metrics.jsonl")
    assert record["grad_norm"] > 1e-2  # logged as it was before
    assert moved == pytest.approx(min(record["grad_norm"], bound), rel=1e-3)
