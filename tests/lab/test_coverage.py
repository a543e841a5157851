"""The share of experiments whose 95 % interval of the win rate holds the true rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binom

from align.evaluation.statistics import win_rate

EXPERIMENTS = 1000


@pytest.mark.parametrize("p", [0.5, 0.7, 0.9, 0.97])
@pytest.mark.parametrize("n", [30, 50, 100, 400])
def test_one_run(n: int, p: float, figures: Any) -> None:
    """Exact: each number of wins has its binomial probability. So few values cannot all be met by 95 %."""
    covered = 0.0
    for wins in range(n + 1):
        found = win_rate(np.repeat([1.0, -1.0], [wins, n - wins]))
        assert found.low is not None
        assert found.high is not None
        covered += float(binom.pmf(wins, n, p)) * (found.low <= p <= found.high)
    figures.at_least(f"coverage, one run of {n} prompts, p = {p}", covered, 0.919)
    assert covered <= 0.981


@pytest.mark.parametrize("effect", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("runs", [3, 5])
def test_several_runs(runs: int, effect: float, figures: Any) -> None:
    """Each run has an effect of this standard deviation and each prompt one of 1 on the logit."""
    rng, prompts, covered = np.random.default_rng(0), 50, 0
    logit = 0.5 + effect * rng.normal(size=(1_000_000,)) + rng.normal(size=(1_000_000,))
    true = float(expit(logit).mean())
    for _ in range(EXPERIMENTS):
        chance_SN = expit(0.5 + effect * rng.normal(size=(runs, 1)) + rng.normal(size=(1, prompts)))
        found = win_rate(np.where(rng.random((runs, prompts)) < chance_SN, 1.0, -1.0))
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= true <= found.high
    figures.at_least(
        f"coverage, {runs} runs of {prompts} prompts, effect of a run {effect}", covered / EXPERIMENTS, 0.93
    )


def test_two_runs_cannot_say() -> None:
    found = win_rate(np.ones((2, 50)))
    assert (found.low, found.high) == (None, None)
    assert "2 runs are too few" in found.percent("prompts")
