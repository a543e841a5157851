"""Verdicts on the parts of a claim: a statistic of the arms, its interval, and the rule that the file states."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from align.comparison.differences import contrast
from align.errors import UserError
from experiments.plan import Arm, Part

__all__ = ["Verdict", "judge", "of_all", "values"]

Array = NDArray[np.float64]
Outcome = Literal["reproduced", "not reproduced", "cannot be told here"]
Measured = Mapping[str, Mapping[int, Any]]
_RESAMPLES = 400
_GRID = 200


@dataclass(frozen=True)
class Verdict:
    """A part of a claim, judged."""

    says: str
    value: float
    low: float
    """Of the 95 % interval."""
    high: float
    runs: int
    prompts: int
    rule: str
    outcome: Outcome
    needs: int | None
    """Runs of each arm from which on it could be told, if the value stays; None: it is told."""


def judge(part: Part, measured: Measured, arms: Mapping[str, Arm]) -> Verdict:
    """Judge a part of a claim."""
    match part.statistic:
        case "mean":
            found = contrast([(c, values(measured[arm], part.of)) for arm, c in part.contrast.items()])
            value, low, high, runs, prompts = found.mean, found.low, found.high, found.runs, found.prompts
        case "spread":
            value, low, high, runs, prompts = _spread(*(values(measured[arm], part.of) for arm in _two(part)))
        case "frontier":
            first, second = (_line(name, measured, arms, part.of) for name in _two(part))
            value, low, high, runs, prompts = _frontiers(first, second)
    rule, outcome = _decide(part, low, high)
    needs = _needed(part, value, (high - low) / 2, runs) if outcome == "cannot be told here" else None
    return Verdict(part.says, value, low, high, runs, prompts, rule, outcome, needs)


def of_all(verdicts: Sequence[Verdict]) -> Outcome:
    """A claim is reproduced if each part is, and not reproduced if one part is not."""
    outcomes = {verdict.outcome for verdict in verdicts}
    if "not reproduced" in outcomes:
        return "not reproduced"
    return "reproduced" if outcomes == {"reproduced"} else "cannot be told here"


def values(of_arm: Mapping[int, Any], of: str) -> Array:
    """Return a quantity of an arm, (S, N); the mean over answers of several to a prompt, or of the best of them."""
    measure, _, quantity = of.partition(".")
    return np.array([_of_prompts(found[measure], quantity or "score") for found in of_arm.values()])


def _of_prompts(found: Mapping[str, Any], quantity: str) -> Array:
    """A value for each prompt; of K answers that of the one with the highest proxy."""
    table = np.array(found[quantity], dtype=np.float64)
    if table.ndim == 1:
        return table
    best = np.array(found["proxy"]).argmax(1)
    return np.take_along_axis(table, best[:, None], 1)[:, 0]


def _decide(part: Part, low: float, high: float) -> tuple[str, Outcome]:
    """Apply the rule to the 95 % interval."""
    margin = part.margin
    match part.rule:
        case "above":
            rule = "above 0" + (f"; not if below {margin:g}" if margin else "")
            yes, no = low > 0, high < margin
        case "within":
            rule = f"within ± {margin:g}"
            yes, no = -margin < low and high < margin, low > margin or high < -margin
        case "not_below":
            rule = f"above −{margin:g}"
            yes, no = low > -margin, high < -margin
    return rule, "reproduced" if yes else "not reproduced" if no else "cannot be told here"


def _needed(part: Part, value: float, half: float, runs: int) -> int:
    """Return the runs whose interval, ``half · √(runs/n)`` to each side of the same value, is clear of the bound."""
    match part.rule:
        case "above":
            distance = value if value > 0 else part.margin - value
        case "within":
            distance = abs(part.margin - abs(value))
        case "not_below":
            distance = abs(value + part.margin)
    return max(runs + 1, math.ceil(round(runs * (half / max(distance, 1e-9)) ** 2, 6)))


def _two(part: Part) -> list[str]:
    """The one with coefficient 1, then the one with −1."""
    assert sorted(part.contrast.values()) == [-1, 1], part.says
    return sorted(part.contrast, key=lambda name: -part.contrast[name])


def _spread(a_SN: Array, b_SN: Array) -> tuple[float, float, float, int, int]:
    """``log(s_a/s_b)`` of the standard deviations of run means, by Miller's jackknife (1968), robust to heavy tails.

    Pseudo-values ``θ_i = n·log s² − (n − 1)·log s²_{−i}`` of each arm, and Welch's t of their means.
    """

    def pseudo(means: Array) -> Array:
        n, whole = len(means), math.log(means.var(ddof=1))
        without = [math.log(np.delete(means, i).var(ddof=1)) for i in range(n)]
        return n * whole - (n - 1) * np.array(without)

    a, b = pseudo(a_SN.mean(1)), pseudo(b_SN.mean(1))
    found = contrast([(0.5, a[:, None]), (-0.5, b[:, None])])  # log s = log s² / 2
    return found.mean, found.low, found.high, min(len(a), len(b)), a_SN.shape[1]


@dataclass(frozen=True)
class _Line:
    """Arms of a line: rewards and KL, (arms, S, N)."""

    score: Array
    kl: Array


def _line(name: str, measured: Measured, arms: Mapping[str, Arm], of: str) -> _Line:
    members = [arm for arm, settings in arms.items() if settings.line == name]
    measure = of.partition(".")[0]
    return _Line(
        np.stack([values(measured[arm], of) for arm in members]),
        np.stack([values(measured[arm], f"{measure}.kl") for arm in members]),
    )


def _frontiers(first: _Line, second: _Line) -> tuple[float, float, float, int, int]:
    """Difference of two frontiers: the best score within a budget of KL, its mean over the budgets that both reach.

    The variance is that over runs, of the S differences, plus that over prompts, by the bootstrap. The budgets are of
    all prompts in both: the KL of resampled ones, a few of which may have most of it, may have nothing in common.
    """
    runs, n = first.score.shape[1:]
    budgets = [_budgets(*(_points(line, run, np.arange(n))[0] for line in (first, second))) for run in range(runs)]

    def differences(prompts: NDArray[np.int64]) -> Array:
        best = [[_best(*_points(line, run, prompts), budgets[run]) for run in range(runs)] for line in (first, second)]
        return (np.array(best[0]) - np.array(best[1])).mean(1)

    found = differences(np.arange(n))
    rng = np.random.default_rng(0)
    resampled = [differences(rng.integers(0, n, n)).mean() for _ in range(_RESAMPLES)]
    of_runs, of_prompts = float(found.var(ddof=1)) / runs, float(np.var(resampled))
    degrees = (of_runs + of_prompts) ** 2 / (of_runs**2 / (runs - 1) + of_prompts**2 / (n - 1))
    half = float(t.ppf(0.975, degrees)) * math.sqrt(of_runs + of_prompts)
    mean = float(found.mean())
    return mean, mean - half, mean + half, runs, n


def _points(line: _Line, run: int, prompts: NDArray[np.int64]) -> tuple[Array, Array]:
    """KL and score of the points of one run, in order of KL."""
    kl, score = (table[:, run, prompts].mean(1) for table in (line.kl, line.score))
    order = np.argsort(kl)
    return kl[order], score[order]


def _budgets(first: Array, second: Array) -> Array:
    """The KL that both lines reach, from the KL of their points.

    Raises:
        UserError: There is none.
    """
    low, high = max(first[0], second[0]), min(first[-1], second[-1])
    if high <= low:
        raise UserError(
            f"The points of two lines have no KL in common: one goes from {first[0]:.2f} to {first[-1]:.2f} nats, the "
            f"other from {second[0]:.2f} to {second[-1]:.2f}; give one of them an arm nearer to the other."
        )
    return np.linspace(low, high, _GRID)


def _best(kl: Array, score: Array, budgets: Array) -> Array:
    """The best score within each budget, between the points of a line on the straight line."""
    return np.interp(budgets, kl, np.maximum.accumulate(score))
