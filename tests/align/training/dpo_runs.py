"""Short runs of DPO on a tiny model, in this process or in others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from align import Policy, Preferences, Trainer, TrainerConfig
from align.settings.adapter import Adapter
from align.system.signals import Interrupted
from methods import DPO

Rows = list[dict[str, str]]


def train(
    model: Path,
    rows: Rows,
    folder: Path,
    method: Any = None,
    adapter: Adapter | None = None,
    **config: Any,
) -> tuple[Path, dict[str, torch.Tensor]]:
    policy = Policy.load(str(model), adapter=adapter or Adapter(r=4))
    if_exists = config.pop("if_exists", "new")
    settings = {"steps": 6, "batch_size": 8, "learning_rate": 1e-2, "max_length": 200, "save_steps": 2} | config
    trainer = Trainer(policy, folder, TrainerConfig(**settings), if_exists=if_exists)
    result = trainer.fit(method or DPO(), Preferences.from_rows(rows))
    return result.folder, load_file(result.folder / "final" / "adapter_model.safetensors")


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max((a[name] - b[name]).abs().max().item() for name in a)


def begin(model: Path, rows: Rows, folder: Path, if_exists: str = "new", steps: int = 10, **settings: Any) -> None:
    """Train in a process of its own, which a signal ends with the code of the command."""
    settings = {"adapter": Adapter(r=4, dropout=0.1), "steps": steps, "tokens_per_microbatch": 600} | settings
    try:
        train(model, rows, folder, if_exists=if_exists, **settings)
    except Interrupted as interrupted:
        raise SystemExit(interrupted.exit_code) from None
