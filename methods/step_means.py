"""Means over two kinds of things in one loss: the trainer divides by pairs, a cross-entropy is a mean over tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from align.method.base import Together
    from align.model.batch import Batch


def with_pairs_per_token(parts: Sequence[Batch], together: Together) -> list[Batch]:
    """Add ``pairs_per_token_P``: pairs over tokens of the chosen responses, of the step on all ranks, both weighted.

    What it multiplies becomes, divided by the pairs, a mean over those tokens.
    """

    def mine() -> tuple[float, float]:
        pairs = sum(float(part["weight_P"].sum()) for part in parts)
        return pairs, sum(float((part.length_PK[:, 0] * part["weight_P"]).sum()) for part in parts)

    pairs, tokens = map(sum, zip(*together(mine), strict=True))
    return [part.with_columns(pairs_per_token_P=torch.full((part.P,), pairs / tokens)) for part in parts]
