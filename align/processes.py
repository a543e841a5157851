"""The processes of a run."""

from __future__ import annotations

import torch
from accelerate import PartialState


def process_state() -> PartialState:
    """This process among those of the run; the first call joins them.

    Without an accelerator the state must be told so: under torchrun on CPUs a bare ``Accelerator()`` joins nobody, and
    every rank would train a run of its own.
    """
    return PartialState(cpu=not torch.accelerator.is_available())
