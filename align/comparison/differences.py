"""Differences between methods, each trained with a few seeds and measured on the same prompts, and how sure they are.

The score of method m, run s, prompt i is ``μ_m + run_ms + prompt_mi + residual_msi``: runs and prompts are crossed
random effects. Each method's runs have a variance of their own. Drawing the variances of all methods towards a common
one (Smyth 2004) would give more power from three seeds, but covers only .78 of the truths where one method's runs
differ ten times as much as the others', as those of an unstable method do; Welch's covers .93 there.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t

Array = NDArray[np.float64]

LEVEL = 0.05
"""Chance at most of naming a winner that is not the best, or where several are best."""
_POWER = 0.8
_TINY = 1e-12
_MOST = 10**8  # prompts or runs; more is none


@dataclass(frozen=True)
class Difference:
    """Mean score of one method minus that of another."""

    mean: float
    low: float
    """Of the 95 % interval."""
    high: float
    p: float
    """Two-sided, of no difference; not corrected for the number of comparisons."""
    degrees: float
    """Of freedom, of Student's t."""
    of_runs: float
    """Variance of the mean that more runs would lower; 0 for one run of each."""
    of_prompts: float
    """Variance of the mean that more prompts would lower; for one run of each, all there is."""
    runs: int
    prompts: int

    @property
    def p_larger(self) -> float:
        """One-sided p of the first method not being better."""
        return self.p / 2 if self.mean > 0 else 1 - self.p / 2


def difference(first: ArrayLike, second: ArrayLike) -> Difference:
    """Mean of ``first`` (S, N) minus that of ``second`` (S', N): S runs on the same N prompts, or (N,) for one run.

    See :func:`contrast`. With one run each, ``V_prompts`` is the variance of N paired differences and the difference is
    one between two trained models, whatever another seed would bring.
    """
    return contrast([(1.0, first), (-1.0, second)])


def contrast(terms: Sequence[tuple[float, ArrayLike]]) -> Difference:
    """``Σ_m c_m·mean_m`` of methods with scores (S_m, N) on the same N prompts, or (N,) for one run.

    ``Var = Σ_m c_m²·V_m/S_m + V_prompts`` where V_m is the variance of a method's run means, with S_m − 1 degrees of
    freedom, and ``V_prompts`` that of the contrast over prompts without the residuals, which V_m has: Welch's t, with
    Satterthwaite's degrees of freedom.

    Args:
        terms: Coefficient and scores of each method.
    """
    tables = [(c, np.atleast_2d(np.asarray(values, dtype=np.float64))) for c, values in terms]
    n, runs = tables[0][1].shape[1], min(len(table_SN) for _, table_SN in tables)
    if not n or any(table_SN.shape[1] != n for _, table_SN in tables):
        raise ValueError(f"scores of {' and of '.join(str(table_SN.shape[1]) for _, table_SN in tables)} prompts")
    mean = float(sum(c * table_SN.mean() for c, table_SN in tables))
    parts = [(c**2 * _of_runs(table_SN), len(table_SN) - 1) for c, table_SN in tables]
    of_runs, of_prompts = sum(part for part, _ in parts), _of_prompts(tables)
    whole = of_runs + of_prompts
    if whole < _TINY:
        certain = n > 1 and abs(mean) > _TINY
        return Difference(mean, mean, mean, 0.0 if certain else 1.0, math.inf, of_runs, of_prompts, runs, n)
    degrees = whole**2 / sum(part**2 / df for part, df in (*parts, (of_prompts, n - 1)) if part > 0)
    half = float(t.ppf(0.975, degrees)) * math.sqrt(whole)
    p = 2 * float(t.sf(abs(mean) / math.sqrt(whole), degrees))
    return Difference(mean, mean - half, mean + half, p, degrees, of_runs, of_prompts, runs, n)


def _of_runs(scores_SN: Array) -> float:
    """Variance of the mean of S runs."""
    return float(scores_SN.mean(1).var(ddof=1)) / len(scores_SN) if len(scores_SN) > 1 else 0.0


def _of_prompts(tables: Sequence[tuple[float, Array]]) -> float:
    """Variance over prompts of the mean contrast, without the residuals of methods that have several runs."""
    n = tables[0][1].shape[1]
    if n < 2:
        return 0.0
    variance = float(np.sum([c * table_SN.mean(0) for c, table_SN in tables], axis=0).var(ddof=1))
    for c, table_SN in tables:
        if (runs := len(table_SN)) > 1:
            residual_SN = table_SN - table_SN.mean(1, keepdims=True) - table_SN.mean(0) + table_SN.mean()
            variance -= c**2 * float((residual_SN**2).sum()) / ((runs - 1) * (n - 1) * runs)
    return max(0.0, variance) / n


@dataclass(frozen=True)
class Ranking:
    """Methods by their mean score, and which of them the data tell apart from the best."""

    order: Sequence[str]
    """By mean score, the best first."""
    behind: Mapping[str, Difference]
    """The best minus each other method."""
    tied: Sequence[str]
    """Those that cannot be told apart from the best, itself first."""

    @property
    def winner(self) -> str | None:
        """The method that is better than every other one; None where the data do not show it."""
        return self.order[0] if len(self.tied) == 1 else None


def rank(scores: Mapping[str, ArrayLike]) -> Ranking:
    """Rank methods by their scores (S, N).

    The best observed method is the winner if Welch's test tells it from each other one at the two-sided level .05. That
    the best was chosen by the same data needs no correction, however many methods there are: the chance of naming one
    that is not the best is largest for two equal ones with all others far below (Gutmann and Maymin 1987, Annals of
    Statistics 15:456; for unequal variances by simulation, ``tests/align/comparison``).
    """
    means = {name: float(np.mean(np.asarray(values))) for name, values in scores.items()}
    best, *others = order = sorted(means, key=lambda name: -means[name])
    behind = {name: difference(scores[best], scores[name]) for name in others}
    tied = [name for name in others if behind[name].p_larger > LEVEL / 2]
    return Ranking(order, behind, [best, *tied])


@dataclass(frozen=True)
class Needed:
    """A size of comparison that would show a difference as large as the observed one, with a power of .8."""

    prompts: int | None
    """With the same runs; None where no number of prompts is enough."""
    runs: int | None
    """Runs of each method, with the same prompts; None where no number of runs is enough."""


def needed(found: Difference) -> Needed:
    """Return what would tell two methods apart that differ by as much as was found.

    More runs lower the variance and bring degrees of freedom: with two of each the quantile of t is far larger.
    """
    if abs(found.mean) < _TINY:
        return Needed(None, None)
    whole = found.of_runs + found.of_prompts
    # Satterthwaite's sum of variance²/degrees is the prompts' part and, the rest of it, the runs'.
    of_prompts_now = found.of_prompts**2 / max(found.prompts - 1, 1)
    of_runs_now = max(whole**2 / max(found.degrees, 1.0) - of_prompts_now, 0.0)

    def shown(prompts: int, runs: int) -> bool:
        fewer_prompts, fewer_runs = found.prompts / prompts, found.runs / runs
        variance = found.of_prompts * fewer_prompts + found.of_runs * fewer_runs
        over_degrees = (found.of_prompts * fewer_prompts) ** 2 / (prompts - 1)
        if found.of_runs:
            over_degrees += of_runs_now * fewer_runs**2 * (found.runs - 1) / (runs - 1)
        degrees = variance**2 / over_degrees
        quantiles = float(t.ppf(1 - LEVEL / 2, degrees) + t.ppf(_POWER, degrees))
        return abs(found.mean) >= quantiles * math.sqrt(variance)

    def least(enough: Callable[[int], bool]) -> int | None:
        number = bisect_left(range(_MOST), True, lo=2, key=enough)
        return number if number < _MOST else None

    return Needed(
        least(lambda prompts: shown(prompts, found.runs)) if found.of_prompts > 0 else None,
        least(lambda runs: shown(found.prompts, runs)) if found.of_runs > 0 else None,
    )
