"""The processes of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from align.errors import UserError

T = TypeVar("T")


def process_state() -> PartialState:
    """This process among those of the run; the first call joins them.

    Without an accelerator the state must be told so: under torchrun on CPUs a bare ``Accelerator()`` joins nobody, and
    every rank would train a run of its own.
    """
    return PartialState(cpu=not torch.accelerator.is_available())


def on_first(make: Callable[[], T]) -> T:
    """What ``make`` returns on the first process, given to all; a `UserError` or `OSError` of its is raised on all."""
    state = process_state()
    made: list[T | UserError | OSError | None] = [None]
    if state.is_main_process:
        try:
            made[0] = make()
        except (UserError, OSError) as error:
            made[0] = error
    if state.num_processes > 1:
        broadcast_object_list(made)
    (result,) = made
    if isinstance(result, (UserError, OSError)):
        raise result
    return result  # pyright: ignore[reportReturnType]
