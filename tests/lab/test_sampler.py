"""The sampler: exact next-token shares of the choice, and drawn responses against their enumerated probabilities."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from align.sampling.params import SamplingParams
from align.sampling.sampler import Sampler
from align.sampling.token_choice import TokenChoice
from tests.lab.enumeration import Array, Enumeration
from tests.lab.tabular import make_policy

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "temperature 0.7": {"temperature": 0.7},
    "temperature 1.8": {"temperature": 1.8},
    "top-k 2": {"top_k": 2},
    "top-p 0.8": {"top_p": 0.8},
    "temperature 0.7, top-k 2, top-p 0.9": {"temperature": 0.7, "top_k": 2, "top_p": 0.9},
    "at least 2 tokens": {"min_new_tokens": 2},
}


def limited(logit_V: Array, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Array:
    """Probabilities after temperature, then the k most probable, then the smallest set with probability p."""
    p_V = np.exp(logit_V / temperature)
    p_V = p_V / p_V.sum()
    if top_k:
        p_V = np.where(p_V >= np.sort(p_V)[::-1][min(top_k, len(p_V)) - 1], p_V, 0)
        p_V = p_V / p_V.sum()
    order = np.argsort(-p_V)
    before = np.cumsum(p_V[order]) - p_V[order]
    p_V[order[before >= top_p]] = 0
    return p_V / p_V.sum()


@pytest.mark.parametrize("name", [name for name in SETTINGS if "at least" not in name])
def test_next_token(name: str, figures: Any) -> None:
    """The share of [0, 1) that chooses each token, by bisecting for the borders of its interval."""
    settings = SETTINGS[name]
    logit_V = np.random.default_rng(0).normal(size=8)
    letters: Any = SimpleNamespace(get_vocab=lambda: {str(v): v for v in range(8)})
    choice = TokenChoice(SamplingParams(**settings, max_new_tokens=1), letters, [], [(0, 0)], 1)

    def token(uniform: float) -> int:
        choice.uniform = np.array([[uniform]])
        choice.responses[0].ids.clear()
        return int(choice(torch.from_numpy(logit_V)[None], [0])[0])

    def share_up_to(v: int) -> float:
        low, high = 0.0, 1.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if token(middle) <= v else (low, middle)
        return low

    found = np.diff([0.0, *(share_up_to(v) for v in range(8))])
    figures.equal(f"next-token probabilities, {name}", limited(logit_V, **settings), found, 1e-10)


@pytest.mark.parametrize("name", SETTINGS)
def test_drawn_responses(name: str, world: Enumeration, figures: Any) -> None:
    """20,000 responses to a prompt: a chi-square test of their frequencies; impossible ones never occur."""
    settings = dict(SETTINGS[name])
    table, draws, x = world.random_table(0), 20_000, 1
    params = SamplingParams(**settings, max_new_tokens=world.longest)
    (drawn,) = Sampler(make_policy(world, table), params).generate([world.prompts[x]], n=draws, seed=3)
    least = settings.pop("min_new_tokens", 0)
    expected_Y = np.ones(len(world.responses))
    for y in range(len(world.responses)):
        for t, (s, token) in enumerate(world.steps(x, y)):
            logit_V = np.where((np.arange(3) == 2) & (t < least - 1), -np.inf, table[s])
            expected_Y[y] *= limited(logit_V, **settings)[token]
    counts = Counter(tuple(response.ids) for response in drawn)
    counts_Y = np.array([counts[ids] for ids in world.responses])
    assert counts_Y.sum() == draws
    possible = expected_Y > 0
    assert not counts_Y[~possible].any()
    result = chisquare(counts_Y[possible], draws * expected_Y[possible] / expected_Y.sum())
    figures.at_least(f"p-value of chi-square, {name}", float(result.pvalue), 1e-3)
