"""The forward pass: both ways to the log-probabilities, and nothing that training does otherwise."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor

from align.model.policy import Policy
from align.settings.adapter import Adapter
from tests.align.model.test_tree_layout import CONFIGS, policy_of, uneven_batch


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("fused_head", [True, False], ids=["from hidden states", "from logits"])
@pytest.mark.parametrize("name", ["gemma2", "granite"])
def test_log_probabilities_and_entropies_with_their_gradients(name: str, fused_head: bool, temperature: float) -> None:
    """Against the distribution of plain logits; 0 and without a gradient where there is no token."""
    policy, batch = policy_of(copy.deepcopy(CONFIGS[name]), "eager"), uneven_batch()
    policy.fused_head = fused_head
    logp, entropy = torch.zeros(2, batch.P, batch.K, batch.T).unbind()
    for p, (prompt, responses) in enumerate(zip(batch.prompt_ids, batch.response_ids, strict=True)):
        for k, ids in enumerate(responses):
            logits = policy.model.eval()(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
            distribution = torch.distributions.Categorical(logits=logits / temperature)
            logp = logp.index_put(
                (torch.tensor(p), torch.tensor(k), torch.arange(len(ids))), distribution.log_prob(torch.tensor(ids))
            )
            entropy = entropy.index_put(
                (torch.tensor(p), torch.tensor(k), torch.arange(len(ids))), distribution.entropy()
            )
    found = policy.logprobs(batch, temperature=temperature, entropy=True)
    assert found.entropy_PKT is not None
    torch.testing.assert_close(found.logp_PKT, logp, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.entropy_PKT, entropy, atol=1e-5, rtol=1e-5)
    parameters = [p for p in policy.model.parameters() if p.requires_grad]
    for ours, theirs in ((found.logp_PKT, logp), (found.entropy_PKT, entropy)):
        for one, two in zip(gradients(ours, parameters), gradients(theirs, parameters), strict=True):
            torch.testing.assert_close(one, two, atol=2e-3, rtol=1e-3)
    assert policy.logprobs(batch, temperature=temperature).entropy_PKT is None


def gradients(sums: Tensor, parameters: list[Any]) -> list[Tensor]:
    weights = torch.linspace(-1, 1, sums.numel()).reshape(sums.shape)
    found = torch.autograd.grad((weights * sums).sum(), parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


@pytest.mark.parametrize("fused_head", [True, False], ids=["from hidden states", "from logits"])
def test_the_softmax_of_a_model_in_bfloat16_is_float32(fused_head: bool) -> None:
    policy, batch = policy_of(copy.deepcopy(CONFIGS["llama"]), "eager"), uneven_batch().select([1])
    policy.model.bfloat16()
    policy.fused_head = fused_head
    with torch.no_grad():
        ids = torch.tensor([[*batch.prompt_ids[0], *batch.response_ids[0][0]]])
        logits = policy.model(ids).logits[0, :-1].double() / 0.7
        expected = logits.log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        found = policy.logprobs(batch, temperature=0.7).logp_PKT
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[0, 0].double(), expected, atol=1e-5, rtol=0)


def test_only_adapters_ever_drop_anything(tiny_policy: Policy) -> None:
    """A model left in training mode computes what it does in evaluation mode."""
    policy, batch = policy_of(copy.deepcopy(CONFIGS["gpt2"]), "eager"), uneven_batch()
    expected = policy.logprobs(batch).logp_PKT
    policy.model.train()
    assert torch.equal(policy.logprobs(batch).logp_PKT, expected)
    assert not policy.model.training
    assert tiny_policy.roles.dropout == 0


@pytest.mark.parametrize("dora", [False, True])
def test_adapters_are_in_training_mode_only_while_they_drop(dora: bool, tiny_model: Any) -> None:
    policy, batch = Policy.load(tiny_model, adapter=Adapter(r=2, dropout=0.25, dora=dora)), uneven_batch()
    assert policy.roles.dropout == 0.25
    layers = [module for module in policy.model.modules() if isinstance(module, LoraLayer)]

    def modes() -> set[bool]:
        inner = {dropout.training for layer in layers for dropout in layer.lora_dropout.values()}
        return inner | {bool(getattr(layer, "training")) for layer in layers}  # noqa: B009

    policy.logprobs(batch)
    assert modes() == {True}
    with torch.no_grad():
        policy.logprobs(batch)
    assert modes() == {False}
    with policy.dropout(False):
        policy.logprobs(batch)
        assert modes() == {False}
    with pytest.raises(RuntimeError), policy.dropout(False):
        raise RuntimeError
    policy.logprobs(batch)
    assert modes() == {True}
