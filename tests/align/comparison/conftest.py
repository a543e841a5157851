"""Comparisons made up: methods whose scores are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from align.comparison.results import Cost, Measured, Results, results

N, SEEDS = 120, (0, 1, 2)


def measured(mean: float, seed: int, *, number: int, length: float = 20.0, sd: float = 0.1) -> Measured:
    """One run of a method with this mean score."""
    rng = np.random.default_rng([number, seed])
    common = np.random.default_rng(99).normal(0, 0.3, N)
    return Measured(
        scores=(mean + common + rng.normal(0, sd, N)).tolist(),
        lengths=(length + rng.integers(0, 5, N)).tolist(),
        kl=np.full(N, number / 10).tolist(),
        preferred=[1.0] * 70 + [0.0] * 30,
        pair_prompts=[str(i) for i in range(100)],
        chosen_loss=2.0 + number / 100,
        distinct_2=0.5,
        prompts=[f"Prompt {i}" for i in range(N)],
        responses=[f"Answer {number}.{i}" for i in range(N)],
    )


def made(means: Mapping[str, float], seeds: Sequence[int] = SEEDS, **costs: Cost) -> Results:
    """A comparison of the start model, at 0, with methods of these mean scores."""
    tables = {
        label: {seed: measured(mean, seed, number=number) for seed in seeds}
        for number, (label, mean) in enumerate({"start": 0.0, **means}.items())
    }
    given = {label: [costs.get(label, Cost(60, 2**30, 1e6, 0, 4e12))] * 3 for label in means}
    return results(tables, given, start="start", max_new_tokens=24)


@pytest.fixture(scope="session")
def clear() -> Results:
    """``b`` is far ahead of ``a``, which is ahead of the start; ``c`` is behind it."""
    return made({"a": 0.2, "b": 0.5, "c": -0.3}, b=Cost(600, 2**32, 1e6, 1e5, 5e12))
