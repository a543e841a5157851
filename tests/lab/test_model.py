"""The tabular model: the toolkit's log-probabilities, entropies and scalars are those of the enumeration."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from align.sampling.params import SamplingParams
from align.sampling.sampler import Sampler
from tests.lab.enumeration import Enumeration
from tests.lab.steps import batch_of
from tests.lab.tabular import make_policy, set_scalars


@pytest.mark.parametrize("layout", ["tree", "flat"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities(world: Enumeration, figures: Any, layout: Any, temperature: float) -> None:
    """Ragged prompts, ragged responses, ragged K."""
    table = world.random_table(0)
    policy = make_policy(world, table, layout=layout)
    tuples = [(0, tuple(range(15))), (1, (3, 14, 7)), (2, (0,))]
    out = policy.logprobs(batch_of(world, tuples), temperature=temperature, entropy=True)
    logps = world.token_logps(table, temperature)
    p_SV = np.exp(table / temperature) / np.exp(table / temperature).sum(-1, keepdims=True)
    entropy_S = -(p_SV * np.log(p_SV)).sum(-1)
    expected, entropy = np.zeros((3, 15, 3)), np.zeros((3, 15, 3))
    for p, (x, ys) in enumerate(tuples):
        for k, y in enumerate(ys):
            expected[p, k, : len(logps[x][y])] = logps[x][y]
            entropy[p, k, : len(logps[x][y])] = [entropy_S[s] for s, _ in world.steps(x, y)]
    name = f"{layout} rows at temperature {temperature}"
    figures.equal(f"log π(y_t), {name}", expected, out.logp_PKT.detach(), 1e-12)
    figures.equal(f"entropies, {name}", entropy, out.entropy_PKT.detach(), 1e-12)


@pytest.mark.parametrize("layout", ["tree", "flat"])
def test_scalars_and_values(world: Enumeration, figures: Any, layout: Any) -> None:
    """A reward is read after the last token, a value before each."""
    policy = make_policy(world, world.random_table(0), layout=layout)
    policy.require(["reward"])
    scalar_S = np.random.default_rng(1).normal(size=len(world.rows))
    set_scalars(policy, "reward", scalar_S)
    every = range(15)
    with torch.no_grad(), policy.use("reward"):
        batch = batch_of(world, [(x, tuple(every)) for x in range(3)])
        scalar_PK, value_PKT = policy.scalars(batch), policy.values(batch)
    expected = [[scalar_S[world.rows[(*x, *y)]] for y in world.responses] for x in world.prompts]
    figures.equal(f"scalars, {layout} rows", expected, scalar_PK, 1e-12)
    values = np.zeros((3, 15, 3))
    for x, y in product(range(3), every):
        values[x, y, : world.length_Y[y]] = [scalar_S[s] for s, _ in world.steps(x, y)]
    figures.equal(f"values, {layout} rows", values, value_PKT, 1e-12)


def test_sampled_log_probabilities(world: Enumeration, figures: Any) -> None:
    """The decode loop, prompts padded on the left, finished rows leaving the batch."""
    table = world.random_table(0)
    drawn = Sampler(make_policy(world, table), SamplingParams(temperature=0.7, max_new_tokens=3)).generate(
        world.prompts, n=50
    )
    logps = world.token_logps(table, 0.7)
    expected = [logps[x][world.responses.index(tuple(r.ids))] for x in range(3) for r in drawn[x]]
    found = [response.logps for row in drawn for response in row]
    figures.equal("log π(y_t) as the sampler returns it", np.concatenate(expected), np.concatenate(found), 1e-12)
    ended = [world.ended_Y[world.responses.index(tuple(r.ids))] for x in range(3) for r in drawn[x]]
    assert ended == [response.finished for row in drawn for response in row]
