"""KL(π ‖ π_ref) of whole vocabularies, against sums over plain logits."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from align.model import divergence
from align.model.divergence import sequence_kl
from align.model.policy import Policy
from tests.align.model.test_tree_layout import CONFIGS, policy_of, uneven_batch


def two_models(name: str) -> Policy:
    """A policy, and a reference with other weights."""
    config = copy.deepcopy(CONFIGS[name])
    policy = policy_of(config, "eager")
    policy.require(["reference"])
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in policy.roles.weights("policy").values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return policy


def by_hand(policy: Policy, temperature: float) -> Tensor:
    """One sequence at a time, the whole distributions in float64."""
    batch = uneven_batch()
    out = torch.zeros(batch.P, batch.K)
    for p, (prompt, responses) in enumerate(zip(batch.prompt_ids, batch.response_ids, strict=True)):
        for k, ids in enumerate(responses):
            logps: list[Tensor] = []
            for role in ("policy", "reference"):
                with torch.no_grad(), policy.use(role):
                    logits = policy.model.eval()(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
                logps.append((logits.double() / temperature).log_softmax(-1))
            ours, theirs = logps
            out[p, k] = torch.nn.functional.kl_div(theirs, ours, reduction="sum", log_target=True)
    return out


@pytest.mark.parametrize("tile", [2**25, 97 * 2, 1], ids=["one tile", "tiles of two tokens", "tiles of one token"])
@pytest.mark.parametrize("fused_head", [True, False], ids=["from hidden states", "from logits"])
@pytest.mark.parametrize(("name", "temperature"), [("gemma2", 1.0), ("llama", 0.6), ("granite", 1.7)])
def test_it_is_the_sum_over_the_vocabulary(
    name: str, temperature: float, fused_head: bool, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gemma2 has a soft-cap, granite a scale; a response that is not there has 0."""
    monkeypatch.setattr(divergence, "_TILE", tile)
    policy = two_models(name)
    policy.fused_head = fused_head
    expected = by_hand(policy, temperature)
    found = sequence_kl(policy, uneven_batch(), temperature=temperature)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert expected[uneven_batch().valid_PK].min() > 1e-3
    assert not found.requires_grad
    assert policy.role == "policy"


def test_a_token_of_probability_0_adds_nothing_and_rounding_is_never_negative() -> None:
    """Both roles shut the same token out (−∞ − −∞ is no number); equal roles differ by exactly 0."""
    policy = policy_of(copy.deepcopy(CONFIGS["llama"]), "eager")
    policy.fused_head = False
    head: Any = policy.model.get_output_embeddings()
    head.register_forward_hook(lambda _, __, logits: logits.index_fill(-1, torch.tensor([96]), -torch.inf))
    policy.require(["reference"])
    assert torch.equal(sequence_kl(policy, uneven_batch(), temperature=1.0), torch.zeros(3, 3))
    with torch.no_grad():  # a rounding's breadth apart
        for parameter in policy.roles.weights("policy").values():
            parameter.mul_(1 + 1e-7)
    assert (sequence_kl(policy, uneven_batch(), temperature=1.0) >= 0).all()


def test_logits_that_the_output_embedding_does_not_give_are_the_models_own() -> None:
    policy = two_models("llama")
    policy.fused_head = False
    for role in ("policy", "reference"):
        with policy.use(role):
            policy.model.register_forward_hook(lambda _, __, out: out.__class__(logits=out.logits * 1.5))
    found = sequence_kl(policy, uneven_batch(), temperature=1.0)
    torch.testing.assert_close(found, by_hand(policy, 1.0), atol=1e-4, rtol=1e-4)
