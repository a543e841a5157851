"""How far the judge of a comparison can be trusted: the held-out pairs as it orders them, and its taste for length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from align.evaluation.statistics import Estimate, ordered_right, rate

__all__ = ["JudgeCheck", "check_judge"]


_MUCH_TIED = 0.2
"""A share of ties above this is worth a clause."""


@dataclass(frozen=True)
class JudgeCheck:
    """Shares of held-out pairs, a tie of scores as half."""

    accuracy: Estimate
    """Ordered as labelled."""
    prefers_longer: Estimate | None
    """The longer response scores higher; of the pairs of unequal length, None where there are none."""
    labels_prefer_longer: Estimate | None
    """The chosen response is the longer one, of the same pairs."""
    tied: float = 0.0
    """Pairs of which both responses have the same score."""

    @property
    def is_better_than_chance(self) -> bool:
        """The interval of the accuracy lies above a half."""
        return self.accuracy.above_half

    def __str__(self) -> str:
        text = f"it orders {self.accuracy.percent('pairs')} of the held-out pairs as labelled"
        if not self.is_better_than_chance:
            text += ", not shown to be better than chance"
        if self.tied > _MUCH_TIED:
            text += f", with the same score for both responses in {self.tied:.0%} of them"
        if self.prefers_longer is None or self.labels_prefer_longer is None:
            return f"{text}; in each of them both are equally long, so its taste for length is not known"
        longer, labelled = self.prefers_longer.mean, self.labels_prefer_longer.mean
        return f"{text}, and prefers the longer response in {longer:.0%} of them, the labels in {labelled:.0%}"


def check_judge(pairs: Sequence[Mapping[str, Any]] | None) -> JudgeCheck | None:
    """Return the shares; None without pairs.

    Args:
        pairs: ``scores`` and ``lengths`` of the chosen and of the rejected response, and ``prompt``, by which pairs
            belong together.
    """
    if not pairs:
        return None
    groups = [pair["prompt"] for pair in pairs]
    score_N2, length_N2 = (np.array([pair[name] for pair in pairs], dtype=np.float64) for name in ("scores", "lengths"))
    right_N = ordered_right(np.round(score_N2[:, 0] - score_N2[:, 1], 9))
    longer_N = np.sign(length_N2[:, 0] - length_N2[:, 1])
    uneven = longer_N != 0
    tied = float((right_N == 0.5).mean())
    if not uneven.any():
        return JudgeCheck(rate(right_N, groups), None, None, tied)
    some = [group for group, kept in zip(groups, uneven, strict=True) if kept]
    by_judge = np.where(longer_N > 0, right_N, 1 - right_N)[uneven]
    by_labels = (longer_N > 0)[uneven].astype(float)
    return JudgeCheck(rate(right_N, groups), rate(by_judge, some), rate(by_labels, some), tied)
