"""Best-of-n and RFT: the distribution of the best of all n-tuples of draws, its KL, and fine-tuning towards it."""

from __future__ import annotations

import math
from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pytest

from align.candidates.plan import Pool
from align.evaluation.best_of_n import best_of_n
from methods.rft.rft import RFT
from tests.lab.enumeration import Array, Enumeration, kl
from tests.lab.steps import batch_of, every_tuple, minimise, singles
from tests.lab.tabular import make_policy, table


def best_distribution(p_XY: Array, score_XY: Array, n: int) -> Array:
    """``q(y) = π(y)·[F(r)ⁿ − F(r⁻)ⁿ] / P(r)``, F the distribution function of scores; ties share by probability."""
    below_XY = np.array([[p[r < s].sum() for s in r] for p, r in zip(p_XY, score_XY, strict=True)])
    equal_XY = np.array([[p[r == s].sum() for s in r] for p, r in zip(p_XY, score_XY, strict=True)])
    return p_XY * ((below_XY + equal_XY) ** n - below_XY**n) / equal_XY


def scores(world: Enumeration, ties: bool) -> Array:
    score_XY = world.random_scores(2)
    return np.round(score_XY) if ties else score_XY


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_curve_is_unbiased(n: int, ties: bool, figures: Any) -> None:
    """The mean over all 4-tuples of the curve at n is the mean of the best of n draws, also by another scorer."""
    world = Enumeration(longest=2)
    p_XY, score_XY, other_XY = world.probabilities(world.random_table(0)), scores(world, ties), world.random_scores(3)
    best_XY = best_distribution(p_XY, score_XY, n)
    expected = [(best_XY * score_XY).sum(-1), (best_XY * other_XY).sum(-1)]
    found = np.zeros((2, 3))
    memo: dict[Any, Array] = {}
    for x, ys in product(range(3), product(range(7), repeat=4)):
        key = (x, *sorted(ys))
        if key not in memo:
            chooser, other = ([list(table_XY[x, sorted(ys)])] for table_XY in (score_XY, other_XY))
            (point,) = [point for point in best_of_n(chooser, {"other": other}) if point.n == n]
            memo[key] = np.array([point.score, point.others["other"]])
        found[:, x] += p_XY[x, list(ys)].prod() * memo[key]
    figures.equal(f"E[score of the best of {n}], {'ties' if ties else 'no ties'}", expected, found, 1e-10)


@pytest.mark.parametrize("ties", [False, True])
def test_kl(ties: bool, world: Enumeration, figures: Any) -> None:
    """``log n − (n − 1)/n`` is a bound from above, reached where no response is likely and none tie."""
    p_XY, score_XY = world.probabilities(world.random_table(0)), scores(world, ties)
    for n in (2, 4):
        found = best_distribution(p_XY, score_XY, n)
        true = float(kl(np.log(found), np.log(p_XY)).mean())
        (point,) = [point for point in best_of_n([[0.0, 1.0, 2.0, 3.0]]) if point.n == n]
        figures.at_least(
            f"bound {point.kl:.4g} less the KL of best-of-{n} ({true:.4g}), {'ties' if ties else 'no ties'}",
            point.kl - true,
            0,
        )
    many = np.full((1, 2000), 1 / 2000)
    best = best_distribution(many, np.arange(2000.0)[None], 4)
    figures.equal(
        "KL of best-of-4 of 2,000 equally likely", math.log(4) - 3 / 4, kl(np.log(best), np.log(many))[0], 1e-3
    )


@pytest.mark.parametrize("n", [2, 3])
def test_rft(n: int, figures: Any) -> None:
    """RFT keeps of all n-tuples the best of n, and its loss has the optimum there.

    Cut-off responses are left out of the pool (``keep_unfinished=False``), as in the drawing; an empty word too.
    """
    world = Enumeration(longest=2)
    start = world.random_table(0)
    p_XY, score_XY = world.probabilities(start), scores(world, ties=False)
    usable = np.array([bool(ids[:-1]) and ended for ids, ended in zip(world.responses, world.ended_Y, strict=True)])
    texts = ["".join("ab"[token] for token in ids[: -1 if ended else None])
             for ids, ended in zip(world.responses, world.ended_Y, strict=True)]  # fmt: skip
    method = RFT(samples=n, demonstrations=False)
    kept_XY = np.zeros_like(p_XY)
    for (x, ys), weight in zip(*every_tuple(world, p_XY, n), strict=True):
        drawn = Counter(y for y in ys if world.ended_Y[y])
        if not drawn:
            continue
        pool = Pool(
            [{"chosen": None}], [texts[y] for y in drawn], list(drawn.values()), [score_XY[x, y] for y in drawn]
        )
        for row in method.candidates.select(pool).rows:
            kept_XY[x, texts.index(row["chosen"])] += weight
    # Best-of-n where what cannot be used has a score below all others, and is not trained on
    ranked_XY = np.where(usable, score_XY, -np.inf)
    expected = np.where(usable, best_distribution(p_XY, np.where(usable, ranked_XY, -9.0), n), 0)
    figures.equal(f"share of tuples in which a response is kept, n = {n}", expected, kept_XY, 1e-10)
    policy = make_policy(world, start)
    chosen = [(x, (y,)) for x, (y,) in singles(world) if usable[y]]
    minimise(policy, method, batch_of(world, chosen, weight_P=[kept_XY[x, y] for x, (y,) in chosen]))
    target_XY = expected[:, usable] / expected[:, usable].sum(-1, keepdims=True)
    found = kl(np.log(target_XY), world.logps(table(policy))[:, usable])
    figures.equal(f"KL(best-of-n ‖ π) after fine-tuning, n = {n}", np.zeros(3), found, 1e-3)
