"""Short runs of DPO on a tiny model, in this process or by a script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from align import Policy, Preferences, Trainer, TrainerConfig
from align.settings.adapter import Adapter
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


SCRIPT = """
import sys, json, warnings
warnings.filterwarnings("ignore")
import torch
torch.set_num_threads(1)
from align import Policy, Preferences, Trainer, TrainerConfig
from align.settings.adapter import Adapter
from align.system.signals import Interrupted
from methods import DPO
model, rows, folder, if_exists, steps = sys.argv[1:6]
policy = Policy.load(model, adapter=Adapter(r=4, dropout=0.1))
config = TrainerConfig(steps=int(steps), batch_size=8, learning_rate=1e-2, max_length=200, save_steps=2,
                       tokens_per_microbatch=600)
try:
    Trainer(policy, folder, config, if_exists=if_exists).fit(DPO(), Preferences.from_rows(json.load(open(rows))))
except Interrupted as interrupted:
    raise SystemExit(interrupted.exit_code)
"""
