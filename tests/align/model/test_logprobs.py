from __future__ import annotations

import pytest
import torch
from torch import nn

from align.model import logprobs
from align.model.logprobs import HeadTransform, gather_logprobs, token_logprobs


def inputs(vocabulary: int = 50, bias: bool = False) -> tuple[torch.Tensor, nn.Linear, torch.Tensor]:
    torch.manual_seed(0)
    head = nn.Linear(8, vocabulary, bias=bias)
    return torch.randn(11, 8, requires_grad=True), head, torch.randint(0, vocabulary, (11,))


@pytest.mark.parametrize("transform", [HeadTransform(), HeadTransform(0.5, 3.0)])
@pytest.mark.parametrize("bias", [False, True])
def test_against_the_definition(transform: HeadTransform, bias: bool) -> None:
    hidden, head, target = inputs(bias=bias)
    logits = head(hidden) * transform.scale
    if transform.softcap:
        logits = transform.softcap * torch.tanh(logits / transform.softcap)
    distribution = torch.distributions.Categorical(logits=logits / 0.7)
    logp, entropy = token_logprobs(hidden, head, target, transform=transform, temperature=0.7, entropy=True)
    torch.testing.assert_close(logp, distribution.log_prob(target))
    torch.testing.assert_close(entropy, distribution.entropy())


def test_small_and_large_batches_take_different_ways_to_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, head, target = inputs()
    transform = HeadTransform(2.0, 4.0)
    results: list[list[torch.Tensor]] = []
    for limit in (2**26, 0):  # 0: TRL's tiles
        monkeypatch.setattr(logprobs, "_PLAIN_LOGITS", limit)
        logp, entropy = token_logprobs(hidden, head, target, transform=transform, temperature=1.3, entropy=True)
        assert entropy is not None
        gradients = torch.autograd.grad((logp * torch.arange(11) + entropy).sum(), [hidden, head.weight])
        results.append([logp, entropy, *gradients])
    for plain, tiled in zip(*results, strict=True):
        torch.testing.assert_close(plain, tiled, atol=1e-5, rtol=1e-5)


def test_temperature_must_be_positive() -> None:
    hidden, head, target = inputs()
    with pytest.raises(ValueError, match="temperature"):
        token_logprobs(hidden, head, target, transform=HeadTransform(), temperature=0)


@pytest.mark.parametrize("limit", [2**26, 0], ids=["plain", "tiles"])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_tokens_that_are_shut_out_have_no_entropy(
    limit: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bias of −∞ beyond the tokenizer is as if these rows were not there, in values and gradients."""
    monkeypatch.setattr(logprobs, "_PLAIN_LOGITS", limit)
    hidden, head, _ = inputs(bias=True)
    target = torch.randint(0, 40, (11,))
    results: list[list[torch.Tensor]] = []
    for rows in (40, 50):
        part = nn.Linear(8, rows)
        with torch.no_grad():
            part.weight.copy_(head.weight[:rows])
            part.bias.fill_(-torch.inf)
            part.bias[:40] = head.bias[:40]
        out = token_logprobs(hidden, part, target, transform=HeadTransform(), temperature=temperature, entropy=True)
        logp, entropy = out
        assert entropy is not None
        gradients = torch.autograd.grad((logp + 2 * entropy).sum(), [hidden, part.weight, part.bias])
        assert not any(g[40:].any() for g in gradients[1:])
        results.append([logp, entropy, gradients[0], *(g[:40] for g in gradients[1:])])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_entropy_of_logits_of_minus_infinity_by_hand() -> None:
    """p = (½, ½, 0): ln 2, and a gradient of −p·(ln p + H) = 0."""
    logits = torch.tensor([[0.0, 0.0, -torch.inf]], requires_grad=True)
    logp, entropy = gather_logprobs(logits, torch.tensor([0]), entropy=True)
    assert entropy is not None
    torch.testing.assert_close(entropy, torch.tensor([0.6931472]))
    assert torch.equal(torch.autograd.grad(entropy.sum(), logits, retain_graph=True)[0], torch.zeros(1, 3))
    torch.testing.assert_close(torch.autograd.grad(logp.sum(), logits)[0], torch.tensor([[0.5, -0.5, 0.0]]))
    alone, none = gather_logprobs(logits, torch.tensor([0]), entropy=False)
    assert none is None
    assert torch.equal(alone, logp)
