"""Quantiles of a whole optimiser step: what the losses of AOT (Melnyk et al. 2024) compare instead of pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from align.method.base import Together
    from align.model.batch import Batch

Numbers = Mapping[int, tuple[float, float]]


def with_quantiles(
    parts: Sequence[Batch], sorted_of: Callable[[Batch], tuple[Tensor, Tensor]], together: Together
) -> list[Batch]:
    """Add ``quantile_PK``: what stands at the place of each pair's two numbers once those of all ranks are sorted.

    A pair that weighs nothing takes no place.

    Args:
        parts: The micro-batches of this rank.
        sorted_of: Gives the numbers x and y of each pair of a micro-batch, (P,).
        together: See :meth:`align.method.base.Method.prepare_step`.
    """

    def mine() -> Numbers:
        if not parts:
            return {}
        both = torch.cat([torch.stack(sorted_of(part), 1) for part in parts]).tolist()  # from the accelerator at once
        rows = [row for part in parts for row in part.rows]
        weights = [weight for part in parts for weight in part["weight_P"].tolist()]
        return {row: (x, y) for row, weight, (x, y) in zip(rows, weights, both, strict=True) if weight}

    at = at_same_place(_joined(together(mine)))
    nowhere = (0.0, 0.0)
    return [
        part.with_columns(
            quantile_PK=torch.tensor([at.get(row, nowhere) for row in part.rows], dtype=part["reference_PK"].dtype)
        )
        for part in parts
    ]


def at_same_place(values: Numbers) -> dict[int, tuple[float, float]]:
    """For each key with (x, y): the y at the place of its x once all are sorted, and the x at the place of its y.

    Equal numbers stand in the order of their keys, so that the order of the mapping does not matter.
    """
    by_x, by_y = (sorted(values, key=lambda key, i=i: (values[key][i], key)) for i in (0, 1))
    other_y = {key: values[at][1] for key, at in zip(by_x, by_y, strict=True)}
    other_x = {key: values[at][0] for key, at in zip(by_y, by_x, strict=True)}
    return {key: (other_y[key], other_x[key]) for key in values}


def _joined(parts: Iterable[Numbers]) -> Numbers:
    return {key: value for part in parts for key, value in part.items()}
