"""The evaluation's ``kl``: the mean of KL(π_T ‖ π_ref,T) of whole responses, T the sampling temperature."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from align.data.examples import tokenize
from align.data.preferences import Preferences
from align.evaluation.evaluator import Evaluator
from align.sampling.params import SamplingParams
from tests.lab.enumeration import Array, Enumeration, kl
from tests.lab.tabular import make_policy, set_table

PROMPTS = 3000


def evaluated(world: Enumeration, policy_SV: Array, reference_SV: Array, temperature: float) -> Array:
    """The ``kl`` of each sample; every prompt is the same, and each is answered with random numbers of its own."""
    policy = make_policy(world, reference_SV)
    set_table(policy, "policy", policy_SV)
    rows = [{"prompt": "b a", "prompt_id": str(i)} for i in range(PROMPTS)]
    prompts = tokenize(Preferences.from_rows(rows), policy.tokenizer, max_length=8, unit="prompt")
    assert len(prompts) == PROMPTS
    assert tuple(prompts[0].prompt_ids) == world.prompts[1]
    sampling = SamplingParams(temperature=temperature, max_new_tokens=world.longest)
    evaluator = Evaluator(prompts=prompts, texts=["b a"] * PROMPTS, sampling=sampling)
    return np.array([sample.kl for sample in evaluator.measure(policy).samples])


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_mean(temperature: float, world: Enumeration, figures: Any) -> None:
    """Within four standard errors of the enumerated KL, and never negative for a response (full-vocabulary sums)."""
    policy_SV, reference_SV = world.random_table(1), world.random_table(0)
    found = evaluated(world, policy_SV, reference_SV, temperature)
    expected = kl(world.logps(policy_SV, temperature), world.logps(reference_SV, temperature))[1]
    bound = 4 * float(found.std()) / PROMPTS**0.5
    figures.equal(f"evaluation's KL at T = {temperature} (bound: 4 standard errors)", expected, found.mean(), bound)
    assert (found >= 0).all()


def test_start(world: Enumeration, figures: Any) -> None:
    table_SV = world.random_table(0)
    found = evaluated(world, table_SV, table_SV, 0.7)
    figures.equal("evaluation's KL of the start model", np.zeros(PROMPTS), found, 0)
