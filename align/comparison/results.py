"""The outcome of a comparison: a row for each contender, the matrix of win rates, the ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import permutations
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align.comparison.differences import Difference, Ranking, difference, rank
from align.comparison.length_control import length_controlled
from align.evaluation import statistics
from align.evaluation.statistics import Estimate

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """One contender of one seed on the held-out prompts, as ``measured/*.json`` has it."""

    scores: Sequence[float]
    lengths: Sequence[float]
    kl: Sequence[float] | None
    preferred: Sequence[float]
    pair_prompts: Sequence[str]
    """A name for the prompt of each of these pairs."""
    chosen_loss: float | None
    distinct_2: float | None
    prompts: Sequence[str] = ()
    responses: Sequence[str] = ()


@dataclass(frozen=True)
class Cost:
    """Time, memory and tokens of one run."""

    seconds: float
    """Of the processes that trained it, a reward model of its own included."""
    peak_bytes: int
    """Most memory that one of them had."""
    tokens_trained: float
    """In all passes, prompts included, also of a reward model of its own."""
    tokens_drawn: float
    """Before training and during it."""
    flops: float
    """An estimate: :mod:`align.comparison.flops`."""
    tokens_of_reward: float = 0.0
    """Of those trained on, the ones of its reward model."""


@dataclass(frozen=True)
class Row:
    """A contender over all its seeds."""

    label: str
    runs: int
    score: Estimate
    gain: Difference | None
    """Over the start model; None for itself."""
    p_gain: float | None
    """Of no gain, corrected for the number of contenders (Holm)."""
    win_rate: Estimate | None
    """Over the start model's answer to the same prompt, ties half."""
    win_rate_equal_length: Estimate | None
    """As it would be with answers of equal length."""
    kl: Estimate | None
    length: Estimate
    cut_off: float
    """Share of answers that reached the most tokens allowed."""
    tax: float | None
    """Held-out loss on chosen responses minus that of the start model, nats per token; mean over seeds."""
    accuracy: Estimate | None
    """Held-out pairs whose chosen response gained more likelihood."""
    distinct_2: float | None
    cost: Cost | None
    """Medians over seeds; the largest memory."""
    by_seed: Sequence[Mapping[str, float | None]] = field(default_factory=list["Mapping[str, float | None]"])
    """``score`` and ``kl`` of each seed."""


@dataclass(frozen=True)
class Results:
    """A comparison."""

    rows: Sequence[Row]
    """The start model first, then the contenders as they were named."""
    matrix: Mapping[str, Mapping[str, Estimate]]
    """Win rate of the first over the second."""
    p_pairs: Mapping[str, Mapping[str, float]]
    """Two-sided p of no difference in score between two contenders, corrected for all pairs (Holm)."""
    ranking: Ranking
    """Of the contenders and the start model."""
    seeds: Sequence[int]
    prompts: int

    def row(self, label: str) -> Row:
        """The row of a contender."""
        return next(row for row in self.rows if row.label == label)

    def plain(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def results(
    measured: Mapping[str, Mapping[int, Measured]],
    costs: Mapping[str, Sequence[Cost]],
    *,
    start: str,
    max_new_tokens: int,
) -> Results:
    """Compare contenders that were measured on the same prompts with the same seeds; ``start`` is one of them.

    A contender of which a seed is missing is left out: the caller says so.
    """
    seeds = sorted(measured[start])
    whole = {label: [of[seed] for seed in seeds] for label, of in measured.items() if sorted(of) == seeds}
    scores = {label: np.array([one.scores for one in runs]) for label, runs in whole.items()}
    lengths = {label: np.array([one.lengths for one in runs], dtype=np.float64) for label, runs in whole.items()}
    others = [label for label in whole if label != start]
    gains = {label: difference(scores[label], scores[start]) for label in others}
    p_gains = statistics.holm({label: gain.p for label, gain in gains.items()})
    controlled = length_controlled(
        {label: scores[label] - scores[start] for label in others},
        {label: lengths[label] - lengths[start] for label in others},
    )
    base_loss = [one.chosen_loss for one in whole[start]]
    rows = [
        Row(
            label=label,
            runs=len(seeds),
            score=statistics.score(scores[label]),
            gain=gains.get(label),
            p_gain=p_gains.get(label),
            win_rate=statistics.win_rate(scores[label] - scores[start]) if label != start else None,
            win_rate_equal_length=controlled.get(label),
            kl=_of_all([one.kl for one in runs]) if label != start else None,
            length=statistics.mean(lengths[label], least=0.0),
            cut_off=float((lengths[label] >= max_new_tokens).mean()),
            tax=_tax([one.chosen_loss for one in runs], base_loss) if label != start else None,
            accuracy=_accuracy(runs) if label != start else None,
            distinct_2=_mean([one.distinct_2 for one in runs]),
            cost=_typical(costs.get(label, ())),
            by_seed=[{"score": float(np.mean(one.scores)), "kl": _mean(one.kl or [None])} for one in runs],
        )
        for label, runs in whole.items()
    ]
    matrix: dict[str, dict[str, Estimate]] = {label: {} for label in whole}
    pairs = {(a, b): difference(scores[a], scores[b]).p for a, b in permutations(whole, 2) if a < b}
    corrected = statistics.holm({f"{a}\n{b}": p for (a, b), p in pairs.items()})
    p_pairs: dict[str, dict[str, float]] = {label: {} for label in whole}
    for a, b in permutations(whole, 2):
        matrix[a][b] = statistics.win_rate(scores[a] - scores[b])
        p_pairs[a][b] = corrected["\n".join(sorted((a, b)))]
    return Results(rows, matrix, p_pairs, rank(scores), seeds, scores[start].shape[1])


def _of_all(values: Sequence[Sequence[float] | None]) -> Estimate | None:
    known = [one for one in values if one is not None and None not in one]
    return statistics.mean(known, least=0.0) if len(known) == len(values) else None


def _accuracy(runs: Sequence[Measured]) -> Estimate | None:
    return statistics.rate([one.preferred for one in runs], runs[0].pair_prompts) if runs[0].preferred else None


def _tax(losses: Sequence[float | None], of_start: Sequence[float | None]) -> float | None:
    known = [a - b for a, b in zip(losses, of_start, strict=True) if a is not None and b is not None]
    return float(np.mean(known)) if known else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _typical(costs: Sequence[Cost]) -> Cost | None:
    if not costs:
        return None
    return Cost(
        seconds=median(cost.seconds for cost in costs),
        peak_bytes=max(cost.peak_bytes for cost in costs),
        tokens_trained=median(cost.tokens_trained for cost in costs),
        tokens_drawn=median(cost.tokens_drawn for cost in costs),
        flops=median(cost.flops for cost in costs),
        tokens_of_reward=median(cost.tokens_of_reward for cost in costs),
    )
