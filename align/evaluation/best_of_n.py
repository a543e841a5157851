"""Best-of-n sampling: of n responses the one with the highest score.

Its divergence from the policy is at most ``log n − (n − 1)/n`` nats (Stiennon et al. 2020, appendix G.3; Beirami et al.
2024, arXiv 2401.01879), and exactly that where no two responses have the same score. Of equal scores one is taken at
random, which makes it less: it is estimated from the scores drawn. A curve over it shows how the chosen score, and a
second one, change with the distance from the policy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlogy

from align.errors import UserError
from align.system.charts import chart

Array = NDArray[np.float64]


@dataclass(frozen=True)
class BestOfN:
    """The mean scores of the best of n responses."""

    n: int
    kl: float
    """Estimated KL(best of n‖policy) in nats; see :func:`divergence`."""
    kl_bound: float
    """``log n − (n − 1)/n``, which it never exceeds."""
    score: float
    """Mean score by the scorer that chooses."""
    others: dict[str, float]
    """Mean scores by the other scorers, by name."""
    gain: float
    """The score's distance from that of the mean response, in standard deviations of single responses."""
    other_gains: dict[str, float]
    """The same for the others; a gain of the chooser beyond theirs is over-optimisation."""


def best_of_n(score_PK: ArrayLike, others: dict[str, Any] | None = None) -> list[BestOfN]:
    """The curve for n = 1, 2, 4 … up to K, without bias from all subsets of the K responses of each prompt.

    The response of rank i from below (1 … K) is the best of n random ones with probability C(i−1, n−1)/C(K, n)
    (Nakano et al. 2021, appendix I). Equal scores share their ranks' probability.

    Args:
        score_PK: The score that chooses; every prompt has K responses.
        others: Further scores (P, K) by name, which choose nothing.

    Raises:
        UserError: The prompts have different numbers of responses, or none.
    """
    scores = _table(score_PK)
    tables = {name: _table(table) for name, table in (others or {}).items()}
    K = scores.shape[1]
    sizes = [2**i for i in range(int(math.log2(K)) + 1)]
    sizes += [K] if K not in sizes else []
    curve: list[BestOfN] = []
    for n in sizes:
        weights = np.stack([_weights(row, n) for row in scores])
        score, others = _mean(scores, weights), {name: _mean(table, weights) for name, table in tables.items()}
        curve.append(
            BestOfN(
                n=n,
                kl=float(np.mean([divergence(row, n) for row in scores])),
                kl_bound=divergence_bound(n),
                score=score,
                others=others,
                gain=_gain(score, scores),
                other_gains={name: _gain(others[name], table) for name, table in tables.items()},
            )
        )
    return curve


def divergence_bound(n: int) -> float:
    """``log n − (n − 1)/n``, the largest KL(best of n‖policy) in nats."""
    return math.log(n) - (n - 1) / n


def divergence(scores: ArrayLike, n: int) -> float:
    """Estimate KL(best of n‖policy) in nats from the scores of K responses to a prompt; never above the bound.

    A score that several responses share is an outcome of probability ``b − a``, where a share a of the responses has
    lower scores and 1 − b higher ones. The best of n has it with probability ``Δ = bⁿ − aⁿ``, and contributes
    ``Δ·log(Δ/(b − a))``. A score of one response alone stands for the scores around it, all different:
    ``∫_a^b n·uⁿ⁻¹·log(n·uⁿ⁻¹) du = Δ·log n + (n − 1)·(bⁿ·log b − aⁿ·log a − Δ/n)``.
    """
    _, counts = np.unique(np.asarray(scores, dtype=np.float64), return_counts=True)
    edges = np.concatenate([[0.0], counts.cumsum() / counts.sum()])
    low, high = edges[:-1], edges[1:]
    gained = high**n - low**n
    tied = xlogy(gained, gained / (high - low))
    untied = gained * math.log(n) + (n - 1) * (xlogy(high**n, high) - xlogy(low**n, low) - gained / n)
    return float(np.where(counts > 1, tied, untied).sum())


def plot_best_of_n(curve: Sequence[BestOfN], name: str, picture: Path) -> None:
    """Plot the gains over the divergence; where the others fall behind the one that chooses, it is over-optimised.

    In standard deviations, since scores of different scorers have different units.
    """
    kl = [point.kl for point in curve]
    chosen = [point.gain for point in curve]
    with chart(picture, (6, 4)) as (axis,):
        axis.plot(kl, chosen, marker="o", label=f"{name} (chooses)")
        for other in curve[0].others:
            looked_at = [point.other_gains[other] for point in curve]
            (line,) = axis.plot(kl, looked_at, marker="s", linestyle="--", label=other)
            axis.fill_between(kl, looked_at, chosen, color=line.get_color(), alpha=0.1, label=f"gap to {other}")
        for point in curve:
            axis.annotate(f"n={point.n}", (point.kl, point.gain), (-4, 6), textcoords="offset points", fontsize=7)
        axis.set_xlabel("KL from the policy, nats (estimated; equal scores are one outcome)")
        axis.set_ylabel("gain of the best of n, standard deviations")
        axis.margins(y=0.1)
        axis.legend(fontsize=8)


def _table(values: ArrayLike) -> Array:
    try:
        table = np.asarray(values, dtype=np.float64)
    except ValueError:
        table = np.empty(0)
    if table.ndim != 2 or not table.size:
        raise UserError("best-of-n needs the same number of responses, at least one, for every prompt.")
    return table


def _mean(table: Array, weights: Array) -> float:
    return float((weights * table).sum(1).mean())


def _gain(mean: float, table: Array) -> float:
    return float((mean - table.mean()) / (table.std() or 1.0))


def _weights(row: Array, n: int) -> Array:
    """Probability of each response to be the best of n random ones."""
    K = len(row)
    by_rank = np.array([math.comb(i, n - 1) / math.comb(K, n) for i in range(K)])
    weights = np.empty(K)
    weights[np.argsort(row, kind="stable")] = by_rank
    for value in np.unique(row):
        equal = row == value
        weights[equal] = weights[equal].mean()
    return weights
