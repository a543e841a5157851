"""The devices of a run: how many, on how many machines, and the memory of each."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from align.settings.sharding import ShardingName
from align.system.processes import own_device, process_state

__all__ = ["Cluster"]


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Devices that are all alike, one process on each."""

    devices: int
    per_machine: int
    room: float
    """Bytes of a device that a process has for itself."""
    accelerator: bool = True
    """False: processes share the memory of their machine, their own interpreter included."""

    @classmethod
    def own(cls) -> Cluster:
        """Return that which this process was started on."""
        devices = process_state().num_processes
        per_machine = int(os.environ.get("LOCAL_WORLD_SIZE", devices))
        if torch.cuda.is_available():
            there = torch.cuda.get_device_properties(own_device()).total_memory
            return cls(devices=devices, per_machine=per_machine, room=there)
        shared = own_device().type == "cpu"
        room = _memory() / per_machine if shared else _memory()
        return cls(devices=devices, per_machine=per_machine, room=room, accelerator=not shared)

    @property
    def machines(self) -> int:
        """Number of machines."""
        return self.devices // self.per_machine

    def sharing(self, kind: ShardingName) -> int:
        """Return how many devices share one copy of what is sharded."""
        return {"none": 1, "node": self.per_machine, "full": self.devices}[kind]


def _memory() -> int:
    """Bytes of this machine; a container's limit counts."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text(encoding="ascii").strip() if limit.is_file() else "max"
    return physical if text == "max" else min(physical, int(text))
