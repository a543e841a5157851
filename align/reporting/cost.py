"""``cost.json`` of a run: seconds and memory of the process that finished it."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from align.system.files import write_json

__all__ = ["COST", "write_cost"]

COST = "cost.json"


def write_cost(folder: Path, *, seconds: float, first_step: int) -> None:
    """Write what the process took.

    Args:
        folder: Of the run.
        seconds: From the beginning of training to its end, evaluations included.
        first_step: The last step that was done before it: 0, or that of the checkpoint from which it went on.
    """
    import torch

    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, bytes
    cost: dict[str, float] = {
        "seconds": seconds,
        "first_step": first_step,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
    }
    if torch.cuda.is_available():
        cost["peak_device_bytes"] = torch.cuda.max_memory_allocated()
    write_json(folder / COST, cost)
