"""Several ranks in one process, each a thread that meets the others at every exchange."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from align.sampling.engine import engines
from align.system.processes import Processes
from tests.align.training.fake_rollouts import FakeSampler, Plain


class RankThread(Processes):
    """One rank among threads; what it exchanges with the others goes through `parts`."""

    def __init__(self, rank: int, parts: list[Any], meeting: threading.Barrier) -> None:
        super().__init__()
        self.rank, self.world_size, self._parts, self._meeting = rank, len(parts), parts, meeting

    def gather(self, value: Any) -> list[Any]:
        self._parts[self.rank] = value
        self._meeting.wait()
        parts = list(self._parts)
        self._meeting.wait()
        return parts

    def barrier(self) -> None:
        self.gather(None)

    def on_first(self, make: Callable[[], Any]) -> Any:
        return self.gather(make() if self.is_first else None)[0]

    def sum_tensor(self, value: torch.Tensor) -> torch.Tensor:
        return torch.stack(self.gather(value)).sum(0)

    def sum_in_place(self, tensors: Any) -> None:
        for tensor in tensors:
            tensor.copy_(torch.stack(self.gather(tensor.clone())).sum(0))


@pytest.fixture
def at_ranks() -> Callable[[int, Callable[[Processes], Any]], list[Any]]:
    """``at_ranks(2, do)`` calls ``do(processes)`` on two ranks; returns their results, or raises the first's error.

    Models are loaded before: transformers patches its classes while it loads, and two threads would leave them patched.
    """

    def together(number: int, do: Callable[[Processes], Any]) -> list[Any]:
        parts, meeting = [None] * number, threading.Barrier(number, timeout=30)
        with ThreadPoolExecutor(number) as pool:
            made = [pool.submit(do, RankThread(rank, parts, meeting)) for rank in range(number)]
            return [each.result() for each in made]

    return together


@pytest.fixture
def fake_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Roll-outs are drawn without a model, and nothing was asked yet."""
    monkeypatch.setattr(FakeSampler, "asked", [])
    monkeypatch.setattr(Plain, "seen", [])
    monkeypatch.setattr(engines, "Sampler", FakeSampler)


def final(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "final" / "adapter_model.safetensors")
