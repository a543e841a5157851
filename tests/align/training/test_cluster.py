"""The devices of a run."""

from __future__ import annotations

import pytest
import torch

from align.training import cluster
from align.training.cluster import Cluster


def test_processes_of_a_cpu_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.accelerator.is_available():
        pytest.skip("has memory of its own")
    alone = Cluster.own()
    assert (alone.devices, alone.per_machine, alone.machines, alone.accelerator) == (1, 1, 1, False)
    assert 2**28 < alone.room < 2**45
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(cluster.process_state(), "num_processes", 4, raising=False)
    several = Cluster.own()
    assert (several.devices, several.machines, several.room) == (4, 2, alone.room / 2)
    assert [several.sharing(kind) for kind in ("none", "node", "full")] == [1, 2, 4]
