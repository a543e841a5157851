"""How data is dealt into steps and ranks, and columns that are computed once for all of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from accelerate.utils import gather_object
from tqdm import tqdm

from align.model.batch import Batch
from align.system.randomness import epoch_order

if TYPE_CHECKING:
    from align.data import TokenizedPreferences
    from align.method.base import Method
    from align.training.step import Stepper

_CHUNK = 256  # examples at a time


class Batches:
    """One data set as one process sees it."""

    def __init__(self, data: TokenizedPreferences, *, rank: int, world: int) -> None:
        self.data, self.rank, self.world = data, rank, world
        self.cached: Mapping[str, torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self.data)

    def turn(self, number: int, size: int, per_epoch: int, seed: int) -> list[int]:
        """The examples of all ranks whose turn it is, counted from 0: ``per_epoch`` turns of ``size`` are a pass."""
        epoch, position = divmod(number, per_epoch)
        order = epoch_order(len(self.data), seed=seed, epoch=epoch)
        return order[position * size : (position + 1) * size]

    def share(self, chosen: Sequence[int]) -> Batch:
        """This rank's part of these examples: dealt by length, so that ranks have equal work."""
        by_length = sorted(chosen, key=lambda i: (-int(self.data.lengths[i]), i))
        return self.load(by_length[self.rank :: self.world])

    def load(self, indices: Sequence[int]) -> Batch:
        """These examples with their cached columns."""
        batch = Batch.from_examples(self.data[i] for i in indices)
        return batch.with_columns(**{name: table[list(indices)] for name, table in self.cached.items()})

    def all(self, size: int) -> Iterator[Batch]:
        """This rank's part of all examples, ``size`` at a time."""
        mine = range(self.rank, len(self.data), self.world)
        for start in range(0, len(mine), size):
            yield self.load(mine[start : start + size])

    @torch.no_grad()
    def cache_columns(self, method: Method, stepper: Stepper, between: Callable[[], None]) -> None:
        """Compute the method's cached columns, by the policy as it is now; ``between`` may raise to stop."""
        names = method.cached_columns
        if not names:
            return
        rows: list[tuple[int, dict[str, torch.Tensor]]] = []
        mine = range(self.rank, len(self.data), self.world)
        for start in tqdm(range(0, len(mine), _CHUNK), disable=self.rank != 0, desc="reference"):
            between()
            chunk = mine[start : start + _CHUNK]
            # `rows` names rows of the dataset; here the place among the tokenised examples is needed.
            part = dataclasses.replace(self.load(chunk), rows=tuple(chunk))
            for micro in part.micro_batches(stepper.tokens_per_microbatch, stepper.policy.layout):
                with stepper.autocast():
                    done = method.precompute(stepper.policy, micro)
                rows.extend((row, {name: done[name][i].cpu() for name in names}) for i, row in enumerate(micro.rows))
        everyone = rows if self.world == 1 else gather_object(rows)
        everyone.sort(key=lambda item: item[0])
        self.cached = {name: torch.stack([columns[name] for _, columns in everyone]) for name in names}
