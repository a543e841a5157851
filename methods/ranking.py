"""Rankings: the best response of each prompt, and the accuracy of a reward on the comparisons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from align.evaluation.statistics import ordered_right
from align.system.lazy import no_grad

if TYPE_CHECKING:
    from torch import Tensor


def best_response(better_PKK: Tensor, valid_PK: Tensor) -> Tensor:
    """Index of the best response of each prompt; int64 (P,).

    No response was preferred to it; among several such, it has the most wins, then the lowest index. If the comparisons
    form a circle, every response was beaten and the number of wins decides.

    Args:
        better_PKK: True at (p, i, j) where response i was preferred to response j.
        valid_PK: True where a response exists.
    """
    assert better_PKK.shape == (*valid_PK.shape, valid_PK.shape[1])
    assert bool(valid_PK.any(1).all()), "a prompt without responses"
    wins_PK, beaten_PK = better_PKK.sum(2), better_PKK.any(1)
    place_PK = wins_PK + valid_PK.shape[1] * ~beaten_PK  # wins are below K
    return place_PK.masked_fill(~valid_PK, -1).argmax(1)


@no_grad
def comparison_metrics(reward_PK: Tensor, better_PKK: Tensor) -> dict[str, tuple[Tensor, Tensor | float]]:
    """Metrics of ``reward_PK`` as a reward model: means over the comparisons, under the field's usual names."""
    high_PKK, low_PKK = reward_PK[:, :, None].expand_as(better_PKK), reward_PK[:, None, :].expand_as(better_PKK)
    high, low = high_PKK[better_PKK], low_PKK[better_PKK]
    comparisons = float(len(high))
    return {
        "rewards/chosen": (high.sum(), comparisons),
        "rewards/rejected": (low.sum(), comparisons),
        "rewards/accuracies": (ordered_right(high - low).sum(), comparisons),
        "rewards/margins": ((high - low).sum(), comparisons),
    }


@no_grad
def pair_metrics(reward_PK: Tensor, logp_PK: Tensor) -> dict[str, tuple[Tensor, Tensor | float]]:
    """Metrics of pairs, chosen 0 and rejected 1: rewards and log-probabilities under the field's names."""
    pairs, margin_P = float(reward_PK.shape[0]), reward_PK[:, 0] - reward_PK[:, 1]
    return {
        "rewards/chosen": (reward_PK[:, 0].sum(), pairs),
        "rewards/rejected": (reward_PK[:, 1].sum(), pairs),
        "rewards/accuracies": (ordered_right(margin_P).sum(), pairs),
        "rewards/margins": (margin_P.sum(), pairs),
        "logps/chosen": (logp_PK[:, 0].sum(), pairs),
        "logps/rejected": (logp_PK[:, 1].sum(), pairs),
    }
