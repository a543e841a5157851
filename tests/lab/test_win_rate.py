"""The win rate of one policy over another: what the evaluation estimates, and what it is by enumeration."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import numpy as np

from align.evaluation.measurement import Measurement, Sample, compare
from align.sampling.params import SamplingParams
from align.sampling.sampler import Sampler
from tests.lab.enumeration import Array, Enumeration, V
from tests.lab.tabular import make_policy, set_table

DRAWS = 4000


def wins(a: Any, b: Any) -> Any:
    return 0.5 * (a > b) + 0.5 * (a >= b)


def coupled(world: Enumeration, x: int, tables: tuple[Array, Array], score_Y: Array) -> float:
    """``P(r(a) > r(b)) + ½·P(=)`` where both use the same uniform number at each step, as two evaluations do.

    Between the borders of the two distribution functions each policy chooses one token.
    """

    def rest(prefixes: list[tuple[int, ...]]) -> float:
        open_ = [prefix not in world.responses for prefix in prefixes]
        if not any(open_):
            first, second = (score_Y[world.responses.index(prefix)] for prefix in prefixes)
            return float(wins(first, second))
        borders = []
        for prefix, table_SV, going in zip(prefixes, tables, open_, strict=True):
            logit_V = table_SV[world.rows[(*world.prompts[x], *prefix)]] if going else np.zeros(V)
            p_V = np.exp(logit_V) / np.exp(logit_V).sum()
            borders.append(np.cumsum(p_V) if going else np.array([1.0]))
        total = 0.0
        for low, high in pairwise(sorted({0.0, 1.0, *borders[0][:-1], *borders[1][:-1]})):
            chosen = [int(np.searchsorted(border[:-1], (low + high) / 2)) for border in borders]
            longer = [
                (*prefix, token) if going else prefix
                for prefix, token, going in zip(prefixes, chosen, open_, strict=True)
            ]
            total += (high - low) * rest(longer)
        return total

    return rest([(), ()])


def test_win_rate(world: Enumeration, figures: Any) -> None:
    """Start model and trained one draw with the same random numbers, so wins are those of that coupling.

    Independent draws have another rate; at the start both are exactly ½.
    """
    x, before, after, score_XY = 1, world.random_table(0), world.random_table(1), np.round(world.random_scores(2))
    policy, measured = make_policy(world, before), []
    for table_SV in (before, after):
        set_table(policy, "policy", table_SV)
        drawn = Sampler(policy, SamplingParams(max_new_tokens=3)).generate([world.prompts[x]] * DRAWS, seed=1)
        scores = [float(score_XY[x, world.responses.index(tuple(row[0].ids))]) for row in drawn]
        measured.append(Measurement([Sample("", "", 1, None, {"score": s}) for s in scores]))
    found = compare(*measured)["win_rate"]["mean"]
    expected = coupled(world, x, (after, before), score_XY[x])
    figures.equal(f"win rate of {DRAWS} pairs of draws (bound: 4 standard errors)", expected, found, 2 / DRAWS**0.5)
    p_Y, q_Y = (world.probabilities(table_SV)[x] for table_SV in (after, before))
    every = range(len(world.responses))
    independent = sum(p_Y[i] * q_Y[j] * wins(score_XY[x, i], score_XY[x, j]) for i, j in product(every, every))
    figures.state("win rate of independent draws", float(independent))
    figures.equal("win rate of a policy over itself", 0.5, coupled(world, x, (before, before), score_XY[x]), 0)
