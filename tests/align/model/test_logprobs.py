from __future__ import annotations

import pytest
import torch
from torch import nn

from align.model import logprobs
from align.model.logprobs import HeadTransform, token_logprobs


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
