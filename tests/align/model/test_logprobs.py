from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from align.model import logprobs
from align.model.logprobs import HeadTransform, gather_logprobs, log_square_sums, token_logprobs


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


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, HeadTransform(1.0, None)),
        ({"logit_scale": 0.25}, HeadTransform(0.25, None)),  # Cohere
        ({"output_multiplier": 3}, HeadTransform(3.0, None)),
        ({"lm_head_multiplier": 0.5}, HeadTransform(0.5, None)),  # Falcon-H1
        ({"logits_scaling": 8.0}, HeadTransform(0.125, None)),  # Granite divides
        ({"final_logit_softcapping": 30.0}, HeadTransform(1.0, 30.0)),  # Gemma
        ({"logit_scale": 2.0, "final_logit_softcapping": 30.0}, HeadTransform(2.0, 30.0)),
        ({"logits_scaling": 4.0, "final_logit_softcapping": 30.0}, HeadTransform(0.25, 30.0)),
        ({"logit_scale": None, "logits_scaling": None, "final_logit_softcapping": None}, HeadTransform(1.0, None)),
    ],
)
def test_the_transformation_of_a_configuration(config: dict[str, Any], expected: HeadTransform) -> None:
    assert HeadTransform.of(SimpleNamespace(**config)) == expected


def test_the_transformation_by_hand() -> None:
    """3·tanh(.5·z/3): 3·tanh(1) = 2.2847825 for z = 6."""
    torch.testing.assert_close(HeadTransform(0.5, 3.0)(torch.tensor([6.0, 0.0])), torch.tensor([2.2847825, 0.0]))
    assert HeadTransform(0.5)(torch.tensor([6.0])).tolist() == [3.0]


def test_logits_in_bfloat16_are_transformed_and_normalised_in_float32() -> None:
    hidden, head, target = inputs()
    hidden, head = hidden.detach().bfloat16(), head.bfloat16()
    with torch.no_grad():
        z = head(hidden).double() * 3
        expected = (2 * torch.tanh(z / 2) / 0.7).log_softmax(-1)
        logp, entropy = token_logprobs(
            hidden, head, target, transform=HeadTransform(3.0, 2.0), temperature=0.7, entropy=True
        )
    assert entropy is not None
    assert logp.dtype == entropy.dtype == torch.float32
    torch.testing.assert_close(logp.double(), expected.gather(1, target[:, None])[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(entropy.double(), -(expected.exp() * expected).sum(-1), atol=1e-5, rtol=0)


def test_at_its_defaults_it_is_plain_log_softmax() -> None:
    hidden, head, target = inputs()
    logp, entropy = token_logprobs(hidden, head, target, transform=HeadTransform())
    torch.testing.assert_close(logp, torch.distributions.Categorical(logits=head(hidden)).log_prob(target))
    assert entropy is None
    with pytest.raises(ValueError, match="temperature must be positive, not -1"):
        token_logprobs(hidden, head, target, transform=HeadTransform(), temperature=-1)


def test_log_square_sums() -> None:
    """``log Σ π²`` of the probabilities themselves, in tiles too."""
    torch.manual_seed(0)
    hidden_ND, head = torch.randn(5, 8), torch.nn.Linear(8, 11)
    with torch.no_grad():
        p_NV = (3 * torch.tanh(head(hidden_ND) / 3) / 0.7).softmax(-1)
    found = log_square_sums(hidden_ND, head, transform=HeadTransform(1.0, 3.0), temperature=0.7)
    torch.testing.assert_close(found, (p_NV**2).sum(-1).log())
    assert log_square_sums(hidden_ND[:0], head, transform=HeadTransform()).shape == (0,)
