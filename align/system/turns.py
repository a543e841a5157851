"""Turns: ranks that share out a model's weights compute with it in turns, which all of them take together.

A pass through a sharded model gathers each of its layers from all ranks, so every rank has to gather the same layers in
the same order, however many micro-batches it has, and even if it has none. Before a pass a rank says what it is about
to do. Of all that the ranks want, the first by :class:`Turn` comes next; ranks that want something else, or that wait
for the others in a collective call of :class:`align.system.processes.Processes`, follow: they gather the same layers
and compute nothing, or what weighs nothing, so that no sum changes.

What the ranks say goes over gloo even where weights go over NCCL, so that no processor waits for its accelerator.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from enum import IntEnum
from typing import Any, Protocol

import torch
import torch.distributed as dist

__all__ = ["PATIENCE", "Seat", "Turn", "Turns", "turns"]

PATIENCE = timedelta(days=7)
"""One rank may draw for long while another waits; a lost one is noticed otherwise."""
_NOTHING = sys.maxsize


class Turn(IntEnum):
    """A passage through a sharded model, in the order in which they are served."""

    FORWARD = 1
    """A forward pass without gradients."""
    RECORDED = 2
    """One whose gradients will be asked."""
    BACKWARD = 3
    """The backward passes of all recorded forward passes since the last one."""
    WHOLE = 4
    """All layers are gathered and kept, for many passes that then need no turn."""


class Sharded(Protocol):
    """A model whose layers are gathered for a pass."""

    def follow(self, turn: Turn) -> None:
        """Gather what the turn gathers, and free it again."""
        ...

    def drop(self) -> None:
        """Forget recorded passes of other ranks, whose backward passes will not come."""
        ...


class Seat:
    """A sharded model's place among those that take turns."""

    def __init__(self, number: int, model: Sharded) -> None:
        self.number = number
        self.model = weakref.ref(model)
        self.recorded = 0
        """Recorded passes whose backward passes are to come, of all ranks together."""
        self.own = 0
        """Those of them that this rank computed, and did not follow."""


class Turns:
    """The turns of this process."""

    def __init__(self) -> None:
        self.broken = False
        """A turn of this rank failed half-way; the others are in the middle of it, so no collective call may follow."""
        self._seats: list[Seat] = []
        self._group: Any = None

    def join(self, model: Sharded) -> Seat:
        """Give a model a seat; all ranks call it for the same models in the same order."""
        if self._group is None:
            self._group = dist.new_group(backend="gloo", timeout=PATIENCE)
        self._seats.append(Seat(len(self._seats), model))
        return self._seats[-1]

    @contextmanager
    def take(self, seat: Seat, turn: Turn) -> Generator[None]:
        """Wait until it is this turn's turn, following others; all that it gathers must be gathered in the block."""
        want = turn * 1000 + seat.number
        while (chosen := self._agreed(want)) != want:
            self._follow(chosen)
        if turn is Turn.RECORDED:
            seat.recorded += 1
            seat.own += 1
        try:
            yield
            if turn is Turn.BACKWARD:
                self._follow_backward(seat, seat.recorded - seat.own)
        except BaseException:
            self.broken = True
            raise

    def wait(self) -> None:
        """Follow the other ranks until none of them wants a turn."""
        if self._group is None:
            return
        while (chosen := self._agreed(_NOTHING)) != _NOTHING:
            self._follow(chosen)
        for seat in self._seats:  # what failed between its passes is left on all ranks
            seat.recorded = seat.own = 0
            if (model := seat.model()) is not None:
                model.drop()

    def _agreed(self, want: int) -> int:
        """Return the first of what the ranks want."""
        first = torch.tensor(want)
        dist.all_reduce(first, op=dist.ReduceOp.MIN, group=self._group)
        return int(first)

    def _follow(self, chosen: int) -> None:
        turn, number = divmod(chosen, 1000)
        seat = self._seats[number]
        if turn == Turn.BACKWARD:
            self._follow_backward(seat, seat.recorded)
            return
        if turn == Turn.RECORDED:
            seat.recorded += 1
        _of(seat).follow(Turn(turn))

    def _follow_backward(self, seat: Seat, times: int) -> None:
        for _ in range(times):
            _of(seat).follow(Turn.BACKWARD)
        seat.recorded = seat.own = 0


def _of(seat: Seat) -> Sharded:
    model = seat.model()
    assert model is not None, "another rank computes with a model that is gone here"
    return model


turns = Turns()
"""Of this process, as its process group is."""
