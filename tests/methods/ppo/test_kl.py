"""KL estimators on the vector of docs/methods.md and in exact expectation over a vocabulary; controllers by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from align.errors import UserError
from methods.ppo.kl import AdaptiveKL, FixedKL, KLController, k1, k2, k3, per_token_kl

LOGP, REFERENCE = [-1.0, -0.5, -2.0], [-1.2, -0.4, -1.5]  # log-ratios .2, −.1, −.5
SUMS = {"k1": -0.4, "k2": (0.04 + 0.01 + 0.25) / 2, "k3": 0.172623}


def padded(values: list[float]) -> Tensor:
    """One prompt, two responses of which the second is missing, one more position; NaN wherever nothing is."""
    x_PKT = torch.full((1, 2, len(values) + 1), torch.nan)
    x_PKT[0, 0, :-1] = torch.tensor(values)
    return x_PKT


MASK = ~padded(LOGP).isnan()


@pytest.mark.parametrize("estimator", SUMS)
def test_vector(estimator: Any) -> None:
    kl_PKT = per_token_kl(padded(LOGP), padded(REFERENCE), MASK, estimator)
    assert kl_PKT.sum().item() == pytest.approx(SUMS[estimator], abs=1e-6)
    assert torch.equal(kl_PKT[~MASK], torch.zeros(5))


def test_tokens() -> None:
    kl_PKT = per_token_kl(padded(LOGP), padded(REFERENCE), MASK)  # k1 unless said otherwise
    torch.testing.assert_close(kl_PKT[MASK], torch.tensor([0.2, -0.1, -0.5]))
    kl_PKT = per_token_kl(padded(LOGP), padded(REFERENCE), MASK, "k3")
    torch.testing.assert_close(kl_PKT[MASK], torch.tensor([math.exp(-x) - 1 + x for x in (0.2, -0.1, -0.5)]))


@pytest.mark.parametrize("estimator", SUMS)
def test_gradient_stops_at_the_mask(estimator: Any) -> None:
    logp_PKT = padded(LOGP).requires_grad_()
    per_token_kl(logp_PKT, padded(REFERENCE), MASK, estimator).sum().backward()
    x = torch.tensor([0.2, -0.1, -0.5])
    expected = {"k1": torch.ones(3), "k2": x, "k3": 1 - torch.exp(-x)}[estimator]
    assert logp_PKT.grad is not None
    torch.testing.assert_close(logp_PKT.grad[MASK], expected)
    assert torch.equal(logp_PKT.grad[~MASK], torch.zeros(5))


def test_nearly_equal_policies() -> None:
    """k3 of a small x is ½x², which eˣ − 1 + x computed naively in float32 loses."""
    assert k3(torch.tensor(1e-4)).item() == pytest.approx(5e-9, rel=0.05)
    assert k3(torch.tensor(0.0)).item() == 0


@pytest.fixture
def distributions() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits, reference = torch.randn(2, 7, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), reference.log_softmax(-1)


@pytest.mark.parametrize("estimator", [k1, k3])
def test_unbiased(estimator: Callable[[Tensor], Tensor], distributions: tuple[Tensor, Tensor]) -> None:
    logp, reference = distributions[0].detach().log_softmax(-1), distributions[1]
    torch.testing.assert_close((logp.exp() * estimator(logp - reference)).sum(), _kl(logp, reference))


def test_gradients_in_the_loss(distributions: tuple[Tensor, Tensor]) -> None:
    """The last column of the module's table: expectations over tokens that the policy sampled, without noise."""
    logits, reference = distributions

    def gradient(value: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.autograd.grad(value(logits.log_softmax(-1)), logits)[0]

    def expected(estimator: Callable[[Tensor], Tensor]) -> Tensor:
        return gradient(lambda logp: (logp.detach().exp() * estimator(logp - reference)).sum())

    torch.testing.assert_close(expected(k1), torch.zeros_like(logits))
    torch.testing.assert_close(expected(k2), gradient(lambda logp: _kl(logp, reference)))
    torch.testing.assert_close(expected(k3), gradient(lambda logp: _kl(reference, logp)))
    assert expected(k2).abs().max() > 0.01
    assert not torch.allclose(expected(k2), expected(k3), atol=0.01)


def _kl(logp: Tensor, logq: Tensor) -> Tensor:
    return (logp.exp() * (logp - logq)).sum()


@pytest.mark.parametrize(
    ("kl", "samples", "beta"),
    [
        (6.0, 64, 0.05),  # at the target
        (6.6, 100, 0.05 * (1 + 0.1 * 0.01)),
        (5.4, 100, 0.05 * (1 - 0.1 * 0.01)),
        (60.0, 500, 0.05 * (1 + 0.2 * 0.05)),  # the error is clipped
        (-1.0, 500, 0.05 * (1 - 0.2 * 0.05)),  # an estimate may be negative
        (0.0, 10_000, 0.05 * 0.8),
        (0.0, 90_000, 0.05 * 0.8),  # never below 0
    ],
)
def test_adaptive(kl: float, samples: int, beta: float) -> None:
    controller: KLController = AdaptiveKL(0.05)
    controller.update(kl, samples)
    assert controller.beta == pytest.approx(beta, rel=1e-12)


def test_adaptive_goes_on_from_its_state() -> None:
    first = AdaptiveKL(0.05, target=3, horizon=1000)
    first.update(9.0, 64)
    second = AdaptiveKL(0.05, target=3, horizon=1000)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.beta == first.beta == pytest.approx(0.05 * (1 + 0.2 * 0.064))
    for controller in (first, second):
        controller.update(2.9, 64)
    assert second.beta == first.beta


def test_fixed() -> None:
    controller: KLController = FixedKL(0.05)
    controller.update(100.0, 1000)
    assert controller.state_dict() == {}
    assert controller.beta == 0.05
    assert FixedKL(0).beta == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FixedKL(-0.1), r"method\.beta=-0\.1"),
        (lambda: FixedKL(math.nan), r"method\.beta=nan"),
        (lambda: AdaptiveKL(0.0), r"method\.beta=0\.0"),
        (lambda: AdaptiveKL(0.05, target=0), r"method\.kl_target=0"),
        (lambda: AdaptiveKL(0.05, horizon=math.inf), r"method\.kl_horizon=inf"),
    ],
)
def test_errors(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_a_kl_that_is_not_finite_moves_nothing() -> None:
    controller = AdaptiveKL(0.05)
    with pytest.raises(AssertionError):
        controller.update(math.nan, 64)
    assert controller.beta == 0.05
