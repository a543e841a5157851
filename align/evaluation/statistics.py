"""Statistics: rates, means, comparisons and calibration, each with its number of observations and its uncertainty.

Intervals are 95 %. A rate has Wilson's: of Wilson's, Jeffreys', Agresti and Coull's, Clopper and Pearson's and the
latter's mid-p form it is the nearest to .95 by enumeration of the binomial for n = 30 … 400 and rates of .5, .7, .9 and
.97. Its coverage is .919 to .980 there, within .93 to .97 for 97 % of the pairs of n and rate. None can stay within
that range for all: of 35 with a rate of .97, leaving out the least likely results covers .980, then .913.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    Array = NDArray[np.float64]

Differences = TypeVar("Differences", "Tensor", "Array")

FEWEST_RUNS = 3
"""Two runs say too little of how runs differ: the interval below then covers .89 or everything from 0 to 1."""
DISTINCT_OF = 16
"""Responses to which :func:`distinct_n` is normalised."""
_Z = NormalDist().inv_cdf(0.975)
_SIMULATIONS = 1000


@dataclass(frozen=True)
class Estimate:
    """A rate or a mean with its 95 % interval."""

    mean: float
    low: float | None
    """None where there are too few observations or runs to say; :attr:`reason` says which."""
    high: float | None
    n: int
    """Prompts, pairs or comparisons."""
    runs: int = 1

    @property
    def above_half(self) -> bool:
        """The interval of a rate lies above a half: it is shown to be better than chance."""
        return self.low is not None and self.low > 0.5

    @property
    def reason(self) -> str:
        """Why there is no interval."""
        if 1 < self.runs < FEWEST_RUNS:
            return f"{self.runs} runs are too few for an interval over runs: train with {FEWEST_RUNS} seeds or more"
        return "too few observations for an interval"

    def percent(self, counted: str) -> str:
        """``60.0% (95 % interval 56.4% to 63.6%, 400 prompts)``, where ``counted`` is what ``n`` counts."""
        of = (f"{self.runs} runs, " if self.runs > 1 else "") + f"{self.n:,} {counted}"
        if self.low is None or self.high is None:
            return f"{self.mean:.1%} ({of}; {self.reason})"
        return f"{self.mean:.1%} (95 % interval {self.low:.1%} to {self.high:.1%}, {of})"


# Rates


def ordered_right(differences: Differences) -> Differences:
    """1 for a positive difference (the comparison is ordered right), ½ for a tie, 0 for a negative one.

    The mean is an accuracy in which ties count half, so that a model that tells nothing apart has ½.
    """
    return 0.5 * (differences > 0) + 0.5 * (differences >= 0)


def rate(outcomes: ArrayLike, groups: ArrayLike | None = None) -> Estimate:
    """Mean of outcomes 1, ½ (a tie) and 0, of one run (N,) or of S runs on the same N prompts (S, N).

    One run: ``{p : |m − p| ≤ √(c·p(1−p))}`` with ``c = z²·v/(n·m(1−m))``, Wilson's interval (1927) at the number of
    observations that has the variance ``v = m(1−m) − s/4`` of a share of s ties. To s belong z² observations that are
    no ties, so that ties alone leave some width.

    ``groups`` names the group of each outcome (N,) where they are not independent, as the pairs of one prompt are not:
    v/n is then at least the variance of a mean of groups, ``Σ_g (Σ_{i in g} x_i − m)² / N²``; of several runs, groups
    take the place of prompts.

    Several runs: prompts and runs are crossed random effects, and ``c = h²/(m(1−m))`` with the half width of Howe
    (1974), ``h² = t²_{S−1}·V_runs + z²·V_prompts``: ``V_runs`` is the variance of the mean of the S runs' means,
    ``V_prompts = (MS_prompts − MS_residual)/(S·N)`` of the analysis of variance. It covers .93 to .99 of the simulated
    truths with three runs of 30 to 400 prompts and run effects of 0 to .8 on the logit scale. Below
    :data:`FEWEST_RUNS` runs there is no interval.

    Raises:
        ValueError: There is no outcome.
    """
    outcomes_SN = np.atleast_2d(np.asarray(outcomes, dtype=np.float64))
    runs, n = outcomes_SN.shape
    if not outcomes_SN.size:
        raise ValueError("a rate of no outcomes")
    mean = float(outcomes_SN.mean())
    if 1 < runs < FEWEST_RUNS:
        return Estimate(mean, None, None, n, runs)
    spread = mean * (1 - mean)
    names_N, place_N = np.unique(np.arange(n) if groups is None else np.asarray(groups), return_inverse=True)
    if spread == 0:
        return Estimate(mean, *_wilson(mean, _Z**2 / len(names_N)), n, runs)
    ties = float((outcomes_SN == 0.5).sum()) / (outcomes_SN.size + _Z**2)
    squared = _Z**2 * (spread - ties / 4) / outcomes_SN.size
    scale = len(names_N) / n
    of_groups_SG = np.array([mean + scale * np.bincount(place_N, row_N - mean) for row_N in outcomes_SN])
    if runs > 1:
        squared = max(squared, _crossed(of_groups_SG))
    elif groups is not None:
        squared = max(squared, _Z**2 * float(((of_groups_SG - mean) ** 2).sum()) / len(names_N) ** 2)
    return Estimate(mean, *_wilson(mean, squared / spread), n, runs)


def win_rate(differences: ArrayLike) -> Estimate:
    """Share of wins from score differences (N,) or (S, N); a difference below 1e-9 is a tie. See :func:`rate`."""
    return rate(ordered_right(np.round(np.asarray(differences, dtype=np.float64), 9)))


def _wilson(mean: float, c: float) -> tuple[float, float]:
    """Solve ``(m − p)² = c·p(1 − p)`` for p."""
    middle, root = mean + c / 2, math.sqrt(c * mean * (1 - mean) + c * c / 4)
    low, high = (middle - root) / (1 + c), (middle + root) / (1 + c)
    return max(0.0, min(low, mean)), min(1.0, max(high, mean))  # exactly 0 or 1 at a mean of 0 or 1


def _crossed(values_SN: Array) -> float:
    """Squared half width of the mean of S runs on N prompts; see :func:`rate`."""
    runs, n = values_SN.shape
    of_runs = float(values_SN.mean(1).var(ddof=1)) / runs
    of_prompts = 0.0
    if n > 1:
        residual_SN = values_SN - values_SN.mean(1, keepdims=True) - values_SN.mean(0) + values_SN.mean()
        residual = float((residual_SN**2).sum()) / ((runs - 1) * (n - 1))
        of_prompts = max(0.0, runs * float(values_SN.mean(0).var(ddof=1)) - residual) / (runs * n)
    return _student(runs) ** 2 * of_runs + _Z**2 * of_prompts


# Means


def score(values: ArrayLike) -> Estimate:
    """Mean of one score per prompt (N,), or of S runs on the same N prompts (S, N), inside its possible range.

    Nothing says what a scorer can give, so its scores are taken at their word: those that are all 0 or 1 are the
    outcomes of a :func:`rate`, and the t-interval of those from 0 to 1 ends there. It covers less than it says where
    others were possible.
    """
    given = np.asarray(values, dtype=np.float64)
    if np.isin(given, (0.0, 1.0)).all():
        return rate(given)
    is_share = bool(((given >= 0) & (given <= 1)).all())
    return mean(given, least=0.0, most=1.0) if is_share else mean(given)


def mean(values: ArrayLike, *, least: float = -math.inf, most: float = math.inf) -> Estimate:
    """Mean of one value per prompt (N,) with Student's t-interval, cut at ``least`` and ``most``; one has none.

    Of S runs on the same N prompts (S, N) the half width is that of :func:`rate`.
    """
    values_SN = np.atleast_2d(np.asarray(values, dtype=np.float64))
    runs, n = values_SN.shape
    middle = float(values_SN.mean())
    if n < 2 or 1 < runs < FEWEST_RUNS:
        return Estimate(middle, None, None, n, runs)
    one_run = _student(n) * float(values_SN.std(ddof=1)) / math.sqrt(n)
    half = one_run if runs == 1 else math.sqrt(_crossed(values_SN))
    return Estimate(middle, max(least, middle - half), min(most, middle + half), n, runs)


def _student(n: int) -> float:
    """Return Student's 97.5 % point for n values."""
    from scipy.stats import t  # a second to import

    return float(t.ppf(0.975, n - 1))


# Tests


def sign_test(first: ArrayLike, second: ArrayLike) -> float:
    """Two-sided p of ``first`` and ``second`` being larger equally often, on the same prompts.

    The exact sign test, which for outcomes 0 and 1 is McNemar's; equal values are left out, and with nothing else p is
    1.
    """
    differences = np.round(np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64), 9)
    from scipy.stats import binomtest  # a second to import

    larger, smaller = int((differences > 0).sum()), int((differences < 0).sum())
    return float(binomtest(larger, larger + smaller).pvalue) if larger + smaller else 1.0


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Correct p-values for their number (Holm 1979): ``max over the smaller ones of (m − rank)·p``, at most 1."""
    out: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        out[name] = largest
    return {name: out[name] for name in p_values}


# Calibration


def reliability(confidence: Array, right: Array, bins: int = 10) -> list[dict[str, float]]:
    """Return mean confidence, accuracy and size of each bin of confidence from ½ to 1 that is not empty."""
    place = _bin(confidence, bins)
    return [
        {
            "confidence": float(confidence[place == b].mean()),
            "accuracy": float(right[place == b].mean()),
            "n": int((place == b).sum()),
        }
        for b in range(bins)
        if (place == b).any()
    ]


def calibration_error(confidence: Array, right: Array, bins: int = 10) -> float:
    """``Σ_b n_b/n · |accuracy_b − confidence_b|``, the expected calibration error (Guo et al. 2017, eq. 3)."""
    place = _bin(confidence, bins)
    return float(np.abs(np.bincount(place, right - confidence, bins)).sum()) / len(confidence)


def calibration_error_if_calibrated(confidence: Array, bins: int = 10) -> float:
    """Mean of :func:`calibration_error` if each is right with the probability that it says: of few pairs it is not 0.

    From 1,000 simulated labellings, of which the standard error is about 1 % of the result.
    """
    rng = np.random.default_rng(0)
    place = _bin(confidence, bins)
    sums = np.zeros((_SIMULATIONS, bins))
    for b in np.unique(place):
        inside = confidence[place == b]
        for start in range(0, len(inside), 1000):  # so that no table of all simulations and pairs exists
            part = inside[start : start + 1000]
            sums[:, b] += (rng.random((_SIMULATIONS, len(part))) < part).sum(1) - part.sum()
    return float(np.abs(sums).sum(1).mean()) / len(confidence)


def _bin(confidence: Array, bins: int) -> NDArray[np.int64]:
    return np.minimum((2 * (confidence - 0.5) * bins).astype(np.int64), bins - 1)


# Diversity


def distinct_n(texts: Sequence[str], n: int, of: int = DISTINCT_OF) -> float | None:
    """Distinct n-grams of words divided by all n-grams (Li et al. 2016), in ``of`` of the responses.

    The share falls with the number of responses, so it is that of a fixed number: the expected distinct n-grams of
    ``of`` responses drawn without replacement, ``Σ_g 1 − C(N − N_g, of)/C(N, of)`` where N_g of all N have n-gram g,
    over the expected number of n-grams. None for fewer responses; 0 where there is no n-gram.
    """
    if len(texts) < of:
        return None
    grams = [[tuple(words[i : i + n]) for i in range(len(words) - n + 1)] for words in map(str.split, texts)]
    total = sum(map(len, grams)) * of / len(texts)
    having = Counter(gram for response in grams for gram in set(response))
    all_subsets = math.comb(len(texts), of)
    missing = {count: math.comb(len(texts) - count, of) / all_subsets for count in set(having.values())}
    return sum(1 - missing[count] for count in having.values()) / total if total else 0.0
