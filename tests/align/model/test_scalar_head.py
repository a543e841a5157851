"""The scale of a scalar head, in its output and in its file."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from align.model.scalar_head import ScalarHead


def head() -> ScalarHead:
    made = ScalarHead(2, 1, bias=False)
    with torch.no_grad():
        made.weight.copy_(torch.tensor([[1.0, 2.0]]))
    return made


def test_the_mean_is_subtracted_before_the_division() -> None:
    """w·h = 1·3 + 2·4 = 11; (11 − 5)/4 = 1.5."""
    made, hidden = head(), torch.tensor([[3.0, 4.0]])
    assert made(hidden).tolist() == [[11.0]]
    made.mean, made.std = 5.0, 4.0
    assert made(hidden).tolist() == [[1.5]]


def test_the_scale_is_written_and_read(tmp_path: Path) -> None:
    made, other = head(), head()
    made.mean, made.std = -0.25, 3.0
    made.save_scale(tmp_path)
    assert json.loads((tmp_path / "scale.json").read_text()) == {"mean": -0.25, "std": 3.0}
    other.load_scale(tmp_path)
    assert (other.mean, other.std) == (-0.25, 3.0)
    (tmp_path / "scale.json").unlink()
    other.load_scale(tmp_path)  # a model from elsewhere has none
    assert (other.mean, other.std) == (-0.25, 3.0)
