"""Pairs picked from the scored candidates of a prompt, by whatever learns from pairs or from their sides.

Each picked pair is a row of its own, not part of a ranking, so ``data.pairs`` leaves it as it is; the pairs of a prompt
together weigh one prompt. Equal scores make no pair.

``RejectionSampled`` is statistical rejection sampling (RSO, Liu et al. 2024, arXiv 2309.06657, Algorithm 1): samples of
the policy π become samples of the optimal policy ∝ π·e^(r/β), of which pairs are formed at random and ordered by score
(the paper's first-round ranking).
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from align.candidates.plan import Pool, Selected

__all__ = ["AllPairs", "BestWorst", "RejectionSampled", "accepted"]


@dataclass(frozen=True)
class BestWorst:
    """The best candidate against the worst; of equal ones the first best and the last worst."""

    def __call__(self, pool: Pool) -> Selected:
        """See the class."""
        order = _best_first(pool)
        return _selected(pool, [(order[0], order[-1])] if len(order) > 1 else [])


@dataclass(frozen=True)
class AllPairs:
    """Every candidate against each that scores less."""

    def __call__(self, pool: Pool) -> Selected:
        """See the class."""
        return _selected(pool, list(combinations(_best_first(pool), 2)))


@dataclass(frozen=True)
class RejectionSampled:
    """Pairs of accepted candidates, in the order in which they were accepted; see `accepted`."""

    beta: float
    count: int

    def __call__(self, pool: Pool) -> Selected:
        """See the class."""
        assert pool.scores is not None
        scores = pool.scores
        # The same for the same seed and prompt, whatever else is drawn.
        generator = random.Random(f"{pool.seed} {pool.row.get('prompt_id')}")
        kept = accepted(scores, self.count, self.beta, generator)
        pairs = [(i, j) if scores[i] >= scores[j] else (j, i) for i, j in zip(kept[::2], kept[1::2], strict=False)]
        return _selected(pool, pairs, {"accepted": len(kept)})


def accepted(scores: Sequence[float], count: int, beta: float, generator: random.Random) -> list[int]:
    """Accept ``count`` candidates, or all where there are no more, by rejection sampling without replacement.

    Pass after pass over those left, each is accepted with probability ``exp((r − r_max)/β)``, r_max the highest score
    of those left when the pass begins (Liu et al. 2024, Algorithm 1).

    Args:
        scores: Of the candidates, finite.
        count: Candidates to accept.
        beta: β, in units of the scores.
        generator: Asked once for each candidate of a pass.
    """
    kept: list[int] = []
    left = list(range(len(scores)))
    while left and len(kept) < count:
        highest = max(scores[i] for i in left)
        for i in tuple(left):
            if len(kept) < count and generator.random() < math.exp((scores[i] - highest) / beta):
                kept.append(i)
                left.remove(i)
    return kept


def _best_first(pool: Pool) -> list[int]:
    assert pool.scores is not None
    return sorted(range(len(pool.scores)), key=pool.scores.__getitem__, reverse=True)


def _selected(pool: Pool, pairs: Sequence[tuple[int, int]], counts: Mapping[str, int] = {}) -> Selected:
    """Rows of the pairs (better, worse) whose scores differ."""
    assert pool.scores is not None
    apart = [(i, j) for i, j in pairs if pool.scores[i] > pool.scores[j]]
    rows: list[dict[str, Any]] = [
        {
            "chosen": pool.texts[i],
            "rejected": pool.texts[j],
            "chosen_score": pool.scores[i],
            "rejected_score": pool.scores[j],
            "weight": 1 / len(apart),
        }
        for i, j in apart
    ]
    fate = "paired" if rows else "tied" if len(pool.texts) > 1 else "single"
    return Selected(rows, {fate: 1, **counts})
