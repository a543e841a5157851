"""What the methods that learn from rankings share: which response is the best, and how well rewards follow the data."""

from __future__ import annotations

import torch
from torch import Tensor

from align.evaluation.measurement import ordered_right


def best_response(better_PKK: Tensor, valid_PK: Tensor) -> Tensor:
    """Index of the best response of each prompt; int64 (P,).

    It is one that nothing was preferred to; of several the one preferred to the most others, then the first. Where
    comparisons go in a circle everything was beaten, and the number of wins alone decides.

    Args:
        better_PKK: True at (p, i, j) where response i was preferred to response j.
        valid_PK: Where a response exists.
    """
    assert better_PKK.shape == (*valid_PK.shape, valid_PK.shape[1])
    assert bool(valid_PK.any(1).all()), "a prompt without responses"
    wins_PK, beaten_PK = better_PKK.sum(2), better_PKK.any(1)
    place_PK = wins_PK + valid_PK.shape[1] * ~beaten_PK  # wins are below K
    return place_PK.masked_fill(~valid_PK, -1).argmax(1)


@torch.no_grad()
def comparison_metrics(reward_PK: Tensor, better_PKK: Tensor) -> dict[str, tuple[Tensor, Tensor | float]]:
    """``reward_PK`` as a reward model, under the field's usual names: means over the comparisons of the data."""
    high_PKK, low_PKK = reward_PK[:, :, None].expand_as(better_PKK), reward_PK[:, None, :].expand_as(better_PKK)
    high, low = high_PKK[better_PKK], low_PKK[better_PKK]
    comparisons = float(len(high))
    return {
        "rewards/chosen": (high.sum(), comparisons),
        "rewards/rejected": (low.sum(), comparisons),
        "rewards/accuracies": (ordered_right(high - low).sum(), comparisons),
        "rewards/margins": ((high - low).sum(), comparisons),
    }
