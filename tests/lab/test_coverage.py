"""The share of experiments whose 95 % interval of the win rate holds the true rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binom

from align.evaluation.measurement import win_rate

pytestmark = pytest.mark.slow

EXPERIMENTS = 500


@pytest.mark.parametrize(("n", "p"), [(10, 0.5), (10, 0.9), (30, 0.75), (30, 0.97), (100, 0.5), (100, 0.9)])
def test_one_run(n: int, p: float, figures: Any) -> None:
    """Exact: each number of wins has its binomial probability. So few values cannot be met by 95 % (Wilson: .92 on)."""
    covered = 0.0
    for wins in range(n + 1):
        found = win_rate(np.repeat([1.0, -1.0], [wins, n - wins]))
        covered += float(binom.pmf(wins, n, p)) * (found["low"] <= p <= found["high"])
    figures.at_least(f"coverage, one run of {n} prompts, p = {p}", covered, 0.92)


@pytest.mark.parametrize("runs", [2, 3, 5])
def test_several_runs(runs: int, figures: Any) -> None:
    """500 experiments: each run has an effect of standard deviation 0.8 and each prompt one of 1 on the logit."""
    rng, prompts, covered = np.random.default_rng(0), 50, 0
    logit = 0.5 + 0.8 * rng.normal(size=(1_000_000,)) + rng.normal(size=(1_000_000,))
    true = float(expit(logit).mean())
    for _ in range(EXPERIMENTS):
        chance_SN = expit(0.5 + 0.8 * rng.normal(size=(runs, 1)) + rng.normal(size=(1, prompts)))
        found = win_rate(np.where(rng.random((runs, prompts)) < chance_SN, 1.0, -1.0))
        covered += found["low"] <= true <= found["high"]
    figures.at_least(f"coverage, {runs} runs of {prompts} prompts, effect of a run 0.8", covered / EXPERIMENTS, 0.93)
