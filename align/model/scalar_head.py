"""The head of the reward and value roles, with the scale that normalisation gives it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn
from typing_extensions import override

_SCALE = "scale.json"


class ScalarHead(nn.Linear):
    """A scalar of a hidden state, ``(w·h − mean) / std``: (…, D) → (…, 1), without bias.

    ``mean`` and ``std`` are not trained: normalisation sets them. They are saved in ``scale.json`` beside the weights,
    because the head of a sequence-classification model has no place for them.
    """

    mean: float = 0.0
    std: float = 1.0

    @override
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return (super().forward(input) - self.mean) / self.std

    def save_scale(self, folder: Path) -> None:
        """Write mean and standard deviation."""
        (folder / _SCALE).write_text(json.dumps({"mean": self.mean, "std": self.std}) + "\n", encoding="utf-8")

    def load_scale(self, folder: Path) -> None:
        """Read what :meth:`save_scale` wrote; keep the scale if there is none, as in models from elsewhere."""
        file = folder / _SCALE
        if file.exists():
            scale = json.loads(file.read_text(encoding="utf-8"))
            self.mean, self.std = float(scale["mean"]), float(scale["std"])
