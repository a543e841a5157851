"""Seeds, and the state of the random generators."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch

from align.system.randomness import (
    derived_seed,
    epoch_order,
    load_random_state,
    save_random_state,
    seed_everything,
)


def test_random_states_read_back_exactly(tmp_path: Path) -> None:
    seed_everything(3)
    random.random(), np.random.rand(), torch.rand(1)
    random.gauss(), np.random.randn()  # each keeps the second of a pair of normal numbers
    save_random_state(tmp_path / "random.json")
    expected = (random.gauss(), random.random(), np.random.randn(), np.random.rand(), torch.rand(3).tolist())
    seed_everything(4)
    load_random_state(tmp_path / "random.json")
    again = (random.gauss(), random.random(), np.random.randn(), np.random.rand(), torch.rand(3).tolist())
    assert again == expected
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_derived_seeds_differ_between_runs_and_numbers() -> None:
    assert derived_seed(0, 7) == 7
    assert derived_seed(3, 7) == 3_000_016
    assert len({derived_seed(seed, number) for seed in range(10) for number in range(10)}) == 100


def test_epochs_visit_everything_once_in_different_orders() -> None:
    first, second = (epoch_order(50, seed=1, epoch=epoch) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert first == epoch_order(50, seed=1, epoch=0)
