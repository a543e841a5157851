"""Rankings: the best response of each prompt, and the accuracy of a reward on the comparisons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from align.evaluation.statistics import ordered_right
from align.method.base import compared, weighted_metrics
from align.system.lazy import no_grad

if TYPE_CHECKING:
    from torch import Tensor


def best_response(better_PKK: Tensor, valid_PK: Tensor) -> Tensor:
    """Index of the best response of each prompt; int64 (P,).

    No response was preferred to it; among several such, it has the most wins, then the lowest index. If the comparisons
    form a circle, every response was beaten and the number of wins decides.

    Args:
        better_PKK: True at (p, i, j) where response i was preferred to response j; on the CPU, as the data has it.
        valid_PK: True where a response exists; likewise.
    """
    assert better_PKK.shape == (*valid_PK.shape, valid_PK.shape[1])
    assert bool(valid_PK.any(1).all()), "a prompt without responses"
    wins_PK, beaten_PK = better_PKK.sum(2), better_PKK.any(1)
    place_PK = wins_PK + valid_PK.shape[1] * ~beaten_PK  # wins are below K
    return place_PK.masked_fill(~valid_PK, -1).argmax(1)


@no_grad
def comparison_metrics(
    reward_PK: Tensor, better_PKK: Tensor, weight_P: Tensor
) -> dict[str, tuple[Tensor, Tensor | float]]:
    """Metrics of ``reward_PK`` as a reward model: means over the comparisons, under the field's usual names.

    Each comparison has the weight of its prompt, as in the losses.
    """
    high_PKK, low_PKK = compared(reward_PK, better_PKK)
    values = {
        "rewards/chosen": high_PKK,
        "rewards/rejected": low_PKK,
        "rewards/accuracies": ordered_right(high_PKK - low_PKK),
        "rewards/margins": high_PKK - low_PKK,
    }
    return weighted_metrics(values, weight_P[:, None, None] * better_PKK)


@no_grad
def pair_metrics(reward_PK: Tensor, logp_PK: Tensor, weight_P: Tensor) -> dict[str, tuple[Tensor, Tensor | float]]:
    """Metrics of pairs, chosen 0 and rejected 1: rewards and log-probabilities under the field's names, weighted."""
    margin_P = reward_PK[:, 0] - reward_PK[:, 1]
    values = {
        "rewards/chosen": reward_PK[:, 0],
        "rewards/rejected": reward_PK[:, 1],
        "rewards/accuracies": ordered_right(margin_P),
        "rewards/margins": margin_P,
        "logps/chosen": logp_PK[:, 0],
        "logps/rejected": logp_PK[:, 1],
    }
    return weighted_metrics(values, weight_P)
