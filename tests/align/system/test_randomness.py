"""Seeds, and the state of the random generators."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from align.system import randomness
from align.system.randomness import (
    derived_seed,
    epoch_order,
    load_random_state,
    random_state,
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


@pytest.mark.parametrize("seed", [7, 2**32 + 7])
def test_every_generator_is_seeded(seed: int) -> None:
    """NumPy takes 32 bits of it."""
    seed_everything(seed)
    assert random.random() == random.Random(seed).random()
    assert np.random.rand() == np.random.RandomState(7).rand()
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(seed)))


def test_every_generator_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = {"now": [torch.tensor([1], dtype=torch.uint8)]}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: devices["now"])
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", lambda states: devices.update(now=states))

    def draw() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), torch.rand(1).item()

    restore, before = random_state(), devices["now"]
    devices["now"] = []
    expected = draw()
    restore()
    assert draw() == expected
    assert devices["now"] is before


def test_derived_seeds_differ_between_runs_and_numbers() -> None:
    assert derived_seed(0, 7) == 7
    assert derived_seed(3, 7) == 3_000_016
    assert len({derived_seed(seed, number) for seed in range(10) for number in range(10)}) == 100


def test_epochs_visit_everything_once_in_different_orders() -> None:
    first, second = (epoch_order(50, seed=1, epoch=epoch) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert first == epoch_order(50, seed=1, epoch=0)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(3 * 1_000_003 + 2)).tolist()
    assert epoch_order(50, seed=3, epoch=2) == order
    assert sorted(epoch_order(5, seed=2**62, epoch=0)) == list(range(5))  # beyond the 64 bits of a seed


def test_only_the_state_of_this_process_s_gpu_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 1 of two saves that of cuda:1 alone; resumed on a machine with one GPU it goes to cuda:0."""
    states = {0: torch.tensor([10], dtype=torch.uint8), 1: torch.tensor([11], dtype=torch.uint8)}

    def on(index: int, visible: int) -> None:
        device = torch.device("cuda", index)
        monkeypatch.setattr(randomness, "own_device", lambda: device)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)

    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[device.index])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: states.update({device.index: state}))
    on(1, visible=2)
    save_random_state(tmp_path / "random.json")
    states.update({0: torch.tensor([0], dtype=torch.uint8), 1: torch.tensor([1], dtype=torch.uint8)})
    on(0, visible=1)
    load_random_state(tmp_path / "random.json")
    assert {index: state.item() for index, state in states.items()} == {0: 11, 1: 1}


def test_a_checkpoint_of_a_gpu_resumes_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        device = torch.device("cuda", 0)
        patch.setattr(randomness, "own_device", lambda: device)
        patch.setattr(torch.cuda, "get_rng_state", lambda _: torch.tensor([10], dtype=torch.uint8))
        save_random_state(tmp_path / "random.json")
    load_random_state(tmp_path / "random.json")
