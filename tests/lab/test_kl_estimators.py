"""The KL estimators k1, k2 and k3, summed over every response that the policy could draw."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from methods.ppo.kl import per_token_kl
from tests.lab.enumeration import Enumeration, kl
from tests.lab.steps import batch_of, singles
from tests.lab.tabular import make_policy, set_table


@pytest.mark.parametrize("distance", [0.1, 1.0])
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_bias_and_variance(estimator: Any, distance: float, world: Enumeration, figures: Any) -> None:
    """k1 and k3 are unbiased, k2 is not; of each response the sum over its tokens, of the three prompts the mean."""
    reference = world.random_table(0)
    moved = reference + distance * world.random_table(1)
    policy = make_policy(world, reference)
    set_table(policy, "policy", moved)
    batch = batch_of(world, singles(world))
    with torch.no_grad():
        ours = policy.logprobs(batch).logp_PKT
        with policy.use("reference"):
            theirs = policy.logprobs(batch).logp_PKT
    found_XY = per_token_kl(ours, theirs, batch.mask_PKT, estimator).sum(-1).numpy().reshape(3, 15)
    p_XY, logp_XY, logq_XY = world.probabilities(moved), world.logps(moved), world.logps(reference)
    exact = float(kl(logp_XY, logq_XY).mean())
    logp, logq = world.token_logps(moved), world.token_logps(reference)
    half_XY = np.zeros((3, 15))
    for x, y in product(range(3), range(15)):
        half_XY[x, y] = sum((a - b) ** 2 / 2 for a, b in zip(logp[x][y], logq[x][y], strict=True))
    mean = float((p_XY * found_XY).sum(-1).mean())
    deviation = float(np.sqrt((p_XY * (found_XY - (p_XY * found_XY).sum(-1, keepdims=True)) ** 2).sum(-1).mean()))
    name = f"{estimator}, policy at distance {distance}"
    if estimator == "k2":
        figures.equal(f"E[{name}]", float((p_XY * half_XY).sum(-1).mean()), mean, 1e-10)
        figures.state(f"bias of {name} (KL = {exact:.4g})", mean - exact)
    else:
        figures.equal(f"E[{name}]", exact, mean, 1e-10)
    figures.state(f"standard deviation of {name}", deviation)
    if estimator != "k1":
        assert (found_XY >= 0).all()
