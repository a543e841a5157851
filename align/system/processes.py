"""The processes of a run: the rank of this one, the work they share out, and the numbers they sum."""

from __future__ import annotations

import atexit
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedType, PartialState
from torch import Tensor

from align.errors import UserError, fault_of_user, first_line
from align.system import collectives
from align.system.identity import differences, named
from align.system.launcher import require_no_plugin
from align.system.meeting import meet
from align.system.signals import outlast_sigterm
from align.system.turns import PATIENCE, turns
from align.system.watch import Watch, explained

__all__ = [
    "Processes",
    "add_metrics",
    "lost_process",
    "portable",
    "process_state",
    "require_data_parallel",
    "tell_processes",
    "weighted_means",
]

T = TypeVar("T")


class Processes:
    """This process among those of the run. All of them call a collective method together."""

    def __init__(self, precision: str = "float32") -> None:
        """``precision``: of :meth:`autocast`, ``float32`` or ``bfloat16``."""
        self._state = process_state()
        self._bfloat16 = precision == "bfloat16"
        self.rank: int = self._state.process_index
        self.world_size: int = self._state.num_processes
        self._device: torch.device = own_device()
        self.failed_together = False
        """True once :meth:`together` has raised an error on all ranks, which are then at the same place."""

    @property
    def is_first(self) -> bool:
        """True for the process that writes files and speaks to the user."""
        return self.rank == 0

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """Compute matrix products in bfloat16 inside the block, where that is the precision of the run."""
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=self._bfloat16)

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Every ``world_size``-th item, beginning with that of this rank."""
        return items[self.rank :: self.world_size]

    # Collective

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        turns.wait()
        self._state.wait_for_everyone()

    def first_goes_first(self) -> AbstractContextManager[Any]:
        """Run the block on the first process before the others, which then find its results in the cache."""
        turns.wait()
        return self._state.main_process_first()

    def on_first(self, make: Callable[[], T]) -> T:
        """Call ``make`` on the first process and give its result to all.

        Raises:
            UserError, OSError: ``make`` raised it; all ranks do.
        """
        made: T | UserError | OSError | None = None
        if self.is_first:
            try:
                made = make()
            except (UserError, OSError) as error:
                made = error
        turns.wait()
        result = collectives.broadcast(made, self._device) if self.world_size > 1 else made
        if isinstance(result, (UserError, OSError)):
            raise result
        return result  # pyright: ignore[reportReturnType]

    def gather(self, value: T) -> list[T]:
        """The value of every rank, in their order."""
        turns.wait()
        return collectives.gather(value, self._device) if self.world_size > 1 else [value]

    def require_same(self, ours: Mapping[str, Any]) -> None:
        """Refuse processes of which one is to do another thing than the first.

        Raises:
            UserError: A value of this rank's, or of another one's, is not that of the first.
        """
        everyone = self.gather(ours)
        for rank, theirs in enumerate(everyone):
            if found := differences(everyone[0], theirs, places=("in process 0", f"in process {rank}")):
                raise UserError(f"The processes were not begun alike: {named(found)}. Give each the same command.")

    def together(self, make: Callable[[], T]) -> list[T]:
        """Call ``make`` on every rank; the results of all, in their order.

        If it fails on one rank it fails on all, so that none waits for another in the next collective call.

        Raises:
            Exception: That of this rank; where it has none, the first of another rank.
        """
        if self.world_size == 1:
            return [make()]
        failed: Exception | None = None
        made: T | None = None
        try:
            made = make()
        except Exception as error:
            if turns.broken:
                raise
            failed = error
        parts = self.gather((made, None if failed is None else portable(failed, self.rank)))
        if errors := [error for _, error in parts if error is not None]:
            self.failed_together = True
            raise failed or errors[0]
        return [result for result, _ in parts]  # pyright: ignore[reportReturnType]

    def in_order(self, numbers: Iterable[int], values: Iterable[T]) -> list[T]:
        """The values of all ranks in the order of their numbers, which no two ranks share."""
        mine = list(zip(numbers, values, strict=True))
        everyone = [item for part in self.gather(mine) for item in part]
        return [value for _, value in sorted(everyone, key=lambda item: item[0])]

    def sum(self, value: float) -> float:
        """The sum of a number over the ranks."""
        return sum(self.gather(value))

    def sum_tensor(self, value: Tensor) -> Tensor:
        """The sum of a small tensor over the ranks, wherever it lies."""
        turns.wait()
        if self.world_size == 1:
            return value
        summed = value.to(self._device, copy=True)
        dist.all_reduce(summed)
        return summed.to(value.device)

    def sum_in_place(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor, of the device of this process, by its sum over the ranks."""
        turns.wait()
        if self.world_size > 1:
            collectives.sum_in_place(tensors)

    def reduce_metrics(self, collected: Mapping[str, tuple[Any, Any]]) -> dict[str, float]:
        """``Σsum / Σweight`` of every metric over the ranks; NaN where the weights sum to 0."""
        mine: dict[str, tuple[float, float]] = {}
        add_metrics(mine, collected)
        return weighted_means(self.gather(mine))


def weighted_means(parts: Iterable[Mapping[str, tuple[float, float]]]) -> dict[str, float]:
    """``Σsum / Σweight`` of every metric over its parts; NaN where the weights sum to 0."""
    totals: dict[str, tuple[float, float]] = {}
    for part in parts:
        add_metrics(totals, part)
    return {name: value / weight if weight else math.nan for name, (value, weight) in totals.items()}


def portable(error: Exception, rank: int) -> Exception:
    """Return the error as other ranks raise it: one of this project's as it is, another one as text."""
    if type(error).__module__.startswith("align."):
        return type(error)(str(error))
    return RuntimeError(f"rank {rank} failed: {fault_of_user(error) or f'{type(error).__name__}: {first_line(error)}'}")


def add_metrics(into: dict[str, tuple[float, float]], metrics: Mapping[str, tuple[Any, Any]]) -> None:
    """Add the (sum, weight) of each metric to those collected so far."""
    for name, (value, weight) in metrics.items():
        before = into.get(name, (0.0, 0.0))
        into[name] = (before[0] + float(value), before[1] + float(weight))


def process_state() -> PartialState:
    """Return accelerate's state of this process; the first call joins the processes of the run.

    Without an accelerator ``cpu=True`` is needed: under torchrun on CPUs a bare ``Accelerator()`` joins nobody, and
    every rank would train a run of its own. Ranks wait long for each other: one may tokenise or draw for more than the
    ten minutes that NCCL would give it, and one that is lost is noticed otherwise (:mod:`align.system.watch`).

    Raises:
        UserError: The launcher asks for a plug-in of accelerate, or the other processes did not come
            (:mod:`align.system.meeting`).
    """
    require_no_plugin()
    met = {} if dist.is_initialized() else meet()
    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE, **met)
    if state.num_processes > 1 and dist.is_initialized():
        _watch()
    return state


def own_device() -> torch.device:
    """Return the device of this process."""
    device = process_state().device
    assert device is not None
    return device


_PARTING = 0.2  # seconds


@cache
def _watch() -> Watch:
    """Watch the other processes, and leave watch and group before the interpreter ends."""
    store: Any = dist.distributed_c10d._get_default_store()  # pyright: ignore[reportPrivateUsage]
    watch = Watch(dist.get_rank(), dist.get_world_size(), store.clone())
    watch.begin()

    def leave() -> None:
        watch.end()
        # A thread of gloo frees the tensors of the last collective calls when it comes to it; if the interpreter ends
        # meanwhile, that thread is unwound by force, and C++ aborts the process. Nothing says when it is done.
        time.sleep(_PARTING)
        if dist.is_initialized():
            dist.destroy_process_group()

    atexit.register(leave)
    return watch


def lost_process(error: BaseException) -> str | None:
    """Return the line to print, perhaps empty, where an error comes from the loss of another process; else None."""
    if not (_several() and isinstance(error, RuntimeError) and _CONNECTION.search(str(error))):
        return None
    outlast_sigterm()
    watch = _watch()
    lost = watch.wait() or f"another process of the run cannot be reached ({first_line(error)})"
    watch.heard()
    return explained(lost) if watch.speaks else ""


def tell_processes(sentence: str) -> bool:
    """Tell the other processes of the run why this one fails, so that none waits for it, and the first one says it.

    Returns whether they have met.
    """
    if met := _several():
        _watch().announce(sentence)
    return met


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


_CONNECTION = re.compile(r"gloo|nccl|connection (closed|reset)|broken pipe|socket|process ?group", re.IGNORECASE)
"""In the errors of collective operations, which have no class of their own."""


def require_data_parallel() -> None:
    """Check that accelerate was set up for what this toolkit can do.

    Raises:
        UserError: It was set up for sharded models or other hardware.
    """
    kind = Accelerator().distributed_type
    if kind not in (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU):
        raise UserError(
            f"accelerate is set up for {kind.value}, but this version trains on one device or data-parallel "
            "(MULTI_GPU, MULTI_CPU), with trainer.sharding=full for a base that does not fit; run `accelerate config` "
            "again."
        )
