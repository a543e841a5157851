"""The random numbers and the part of a roll-out that each rank saves and finds again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from align.runs.checkpoint import Checkpoint
from align.system.randomness import seed_everything
from align.system.signals import StopRequest
from align.training.optimizer import make_schedule
from align.training.state import TrainingState


class Drawn:
    """A source of batches with a word for each rank."""

    def __init__(self, word: str) -> None:
        self.word = word

    def save(self, folder: Path) -> None:
        folder.write_text(self.word)

    def load(self, folder: Path) -> None:
        self.word = folder.read_text()


class Store:
    """Lets one rank write into a folder as it would into a checkpoint."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder, self.rank = folder, rank

    def save(self, _: int, __: Any, *, shared: Callable[[Path], None], own: Callable[[Path], None]) -> Path:
        own(self.folder)
        if self.rank == 0:
            shared(self.folder)
        return self.folder


def test_each_rank_finds_its_own_random_numbers_and_batches_again(tmp_path: Path) -> None:
    def make(rank: int, word: str) -> Any:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        stepper: Any = SimpleNamespace(
            processes=SimpleNamespace(rank=rank),
            policy=SimpleNamespace(roles=SimpleNamespace(names=()), uses_adapters=False),
            method=SimpleNamespace(trains=()),
            optimizer=optimizer,
        )
        parts: dict[str, Any] = {"source": Drawn(word), "store": Store(tmp_path, rank), "stop": StopRequest()}
        schedule = make_schedule(optimizer, "constant", warmup=0, steps=1)
        return TrainingState(stepper=stepper, schedule=schedule, steps=1, **parts)

    expected: list[torch.Tensor] = []
    for rank, word in enumerate(("first", "second")):
        seed_everything(rank)
        make(rank, word).save(1)
        expected.append(torch.rand(3))
    assert not torch.equal(*expected)
    for rank, word in enumerate(("first", "second")):
        state = make(rank, "new")
        state.restore(Checkpoint(tmp_path, 1, {}))
        assert torch.equal(torch.rand(3), expected[rank])
        assert state.source.word == word
