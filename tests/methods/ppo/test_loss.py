"""The PPO losses and their metrics: the vector of docs/methods.md, clipping by cases, gradients, micro-batches."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from align.method.base import Metrics
from methods.ppo.advantages import moments
from methods.ppo.loss import (
    explained_variance,
    importance_weights,
    kl_loss,
    policy_loss,
    policy_metrics,
    value_loss,
    value_metrics,
)

OLD_LOGP, LOGP = [-1.0, -0.5, -2.0], [-0.7, -0.6, -1.9]
RAW, WHITENED = [0.844312, 0.68875, 0.825], [0.841984, -1.405011, 0.563028]
OLD_VALUE, VALUE, RETURN = [0.1, 0.3, 0.2], [0.6, 0.25, 0.9], [0.944312, 0.98875, 1.025]


def padded(values: list[float], padding: int = 2) -> Tensor:
    """One prompt with this response and a missing one; NaN wherever nothing is."""
    x_PKT = torch.full((1, 2, len(values) + padding), torch.nan)
    x_PKT[0, 0, : len(values)] = torch.tensor(values)
    return x_PKT


def only(values: list[float]) -> Tensor:
    return torch.tensor(values)[None, None]


def everywhere(x: Tensor) -> Tensor:
    return torch.ones_like(x, dtype=torch.bool)


@pytest.mark.parametrize("padding", [0, 3])
def test_vector(padding: int) -> None:
    logp, old, value, old_value, returns = (padded(x, padding) for x in (LOGP, OLD_LOGP, VALUE, OLD_VALUE, RETURN))
    mask = ~logp.isnan()
    policy = policy_loss(logp, old, padded(WHITENED, padding), mask)
    critic = value_loss(value, old_value, returns, mask)
    raw = policy_loss(logp, old, padded(RAW, padding), mask)
    assert policy.sum().item() / 3 == pytest.approx(-0.120438, abs=1e-6)
    assert raw.sum().item() / 3 == pytest.approx(-0.849383, abs=1e-6)
    assert critic.sum().item() / 3 == pytest.approx(0.225253, abs=1e-6)
    assert (policy + 0.1 * critic).sum().item() / 3 == pytest.approx(-0.097913, abs=1e-6)
    for loss in (policy, raw, critic):
        assert torch.equal(loss[~mask], torch.zeros(int((~mask).sum())))


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),  # slope: d loss / d logp
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.1, 2.0, -2.2, -2.2),
        (1.5, 2.0, -2.6, 0.0),  # 1 + ε_high = 1.3
        (0.5, 2.0, -1.0, -1.0),  # a good token that fell is always pulled up
        (1.0, -2.0, 2.0, 2.0),
        (0.5, -2.0, 1.6, 0.0),  # 1 − ε_low = .8
        (1.5, -2.0, 3.0, 3.0),  # a bad token that rose is pushed down …
        (4.0, -2.0, 6.0, 0.0),  # … up to the dual clip c = 3
        (4.0, 2.0, -2.6, 0.0),  # which never touches A > 0
    ],
)
def test_clipping(ratio: float, advantage: float, loss: float, slope: float) -> None:
    old = only([-1.0])
    logp = (old + math.log(ratio)).requires_grad_()
    found = policy_loss(logp, old, only([advantage]), everywhere(old), clip_low=0.2, clip_high=0.3, dual_clip=3.0)
    found.sum().backward()
    assert logp.grad is not None
    assert found.item() == pytest.approx(loss, rel=1e-5)
    assert logp.grad.item() == pytest.approx(slope, rel=1e-5)


def test_no_dual_clip_unless_asked_for() -> None:
    old = only([-3.0])
    assert policy_loss(old + math.log(4), old, only([-2.0]), everywhere(old)).item() == pytest.approx(8.0)


def test_policy_gradient_at_ratio_one() -> None:
    """Before the first update the gradient is that of −Σ A·log π; so it is for one ratio per response."""
    logp, advantage = padded(LOGP), padded(WHITENED)
    mask = ~logp.isnan()
    leaf = logp.clone().requires_grad_()
    loss = policy_loss(leaf, logp, advantage, mask)
    loss.sum().backward()
    assert leaf.grad is not None
    assert torch.equal(leaf.grad[mask], -advantage[mask])
    assert torch.equal(leaf.grad[~mask], torch.zeros(7))  # NaN there does not spread
    assert torch.equal(loss[mask], -advantage[mask])

    leaf = logp[:, :1, :3].clone().requires_grad_()
    sums = leaf.sum(-1, keepdim=True)
    policy_loss(sums, sums.detach(), only([0.7]), everywhere(sums)).sum().backward()
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, torch.full((1, 1, 3), -0.7))


@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize("shift", [300.0, -300.0])
def test_extreme_ratios_stay_finite(advantage: float, shift: float) -> None:
    old = only([-1.0])
    logp = (old + shift).requires_grad_()
    loss = policy_loss(logp, old, only([advantage]), everywhere(old))
    loss.sum().backward()
    assert logp.grad is not None
    assert bool(torch.isfinite(loss).all())
    assert bool(torch.isfinite(logp.grad).all())


@pytest.mark.parametrize("estimator", ["k1", "k3"])
@pytest.mark.parametrize("moved", [0.0, 1.0])
def test_kl_in_the_loss_has_the_gradient_of_kl(estimator: Any, moved: float) -> None:
    """In expectation over tokens of the old policy, without noise: of all policies at k1 and k3, not at k2."""
    generator = torch.Generator().manual_seed(0)
    logits, reference, step = torch.randn(3, 1, 1, 7, generator=generator, dtype=torch.float64)
    reference, old = reference.log_softmax(-1), (logits + moved * step).log_softmax(-1)
    leaf = logits.clone().requires_grad_()

    def gradient(value: Tensor) -> Tensor:
        return torch.autograd.grad(value.sum(), leaf)[0]

    def expected(estimator: Any) -> Tensor:
        logp = leaf.log_softmax(-1)
        return gradient(old.exp() * kl_loss(logp, old, reference, everywhere(old), estimator))

    exact = gradient(leaf.log_softmax(-1).exp() * (leaf.log_softmax(-1) - reference))
    torch.testing.assert_close(expected(estimator), exact)
    assert not torch.allclose(expected("k2"), exact, atol=0.01)


def test_kl_in_the_loss_beyond_the_mask() -> None:
    logp = padded(LOGP).requires_grad_()
    mask = ~padded(LOGP).isnan()
    loss = kl_loss(logp, padded(OLD_LOGP), padded([-1.2, -0.4, -1.5]), mask, "k1")
    loss.sum().backward()
    ratio, x = torch.tensor([0.3, -0.1, 0.1]).exp(), torch.tensor([0.5, -0.2, -0.4])
    assert logp.grad is not None
    torch.testing.assert_close(loss[mask], ratio * x)
    torch.testing.assert_close(logp.grad[mask], ratio * (x + 1))
    assert torch.equal(logp.grad[~mask], torch.zeros(7))
    assert torch.equal(loss[~mask], torch.zeros(7))


@pytest.mark.parametrize(
    ("value", "old", "loss", "slope"),  # return 1, ε_v .2
    [
        (0.5, 0.4, 0.125, -0.5),  # near the old value: the plain error
        (0.9, 0.2, 0.5 * 0.6**2, 0.0),  # towards the return, further than ε_v: held at .4
        (0.1, 0.6, 0.5 * 0.9**2, -0.9),  # away from it: the plain error is larger
    ],
)
def test_value_clipping(value: float, old: float, loss: float, slope: float) -> None:
    leaf = only([value]).requires_grad_()
    found = value_loss(leaf, only([old]), only([1.0]), everywhere(leaf), clip=0.2)
    found.sum().backward()
    assert leaf.grad is not None
    assert found.item() == pytest.approx(loss, rel=1e-5)
    assert leaf.grad.item() == pytest.approx(slope, abs=1e-6)


def test_value_loss_without_clipping() -> None:
    value, returns = padded(VALUE).requires_grad_(), padded(RETURN)
    mask = ~returns.isnan()
    loss = value_loss(value, padded(OLD_VALUE), returns, mask, clip=None)
    loss.sum().backward()
    difference = (value.detach() - returns)[mask]
    torch.testing.assert_close(loss[mask], difference**2 / 2)
    assert value.grad is not None
    torch.testing.assert_close(value.grad[mask], difference)


def test_value_gradient_stops_at_the_mask() -> None:
    value = padded(VALUE).requires_grad_()
    value_loss(value, padded(OLD_VALUE), padded(RETURN), ~padded(VALUE).isnan()).sum().backward()
    assert value.grad is not None
    assert torch.equal(value.grad[padded(VALUE).isnan()], torch.zeros(7))
    assert bool(torch.isfinite(value.grad).all())


def test_importance_weights() -> None:
    """Ratios 1.5, .25 and 5, truncated at 2 from above alone; a sampler that says −∞ is truncated too."""
    old = padded([-1.0, -1.0, -1.0, -1.0]).requires_grad_()
    sampler = padded([-1 - math.log(1.5), -1 - math.log(0.25), -1 - math.log(5.0), -math.inf])
    mask = ~sampler.isnan()
    weight = importance_weights(old, sampler, mask, cap=2.0)
    assert not weight.requires_grad
    torch.testing.assert_close(weight[mask], torch.tensor([1.5, 0.25, 2.0, 2.0]))
    assert torch.equal(weight[~mask], torch.ones(8))

    ones = torch.where(mask, 1.0, torch.nan)
    loss = policy_loss(old, old.detach(), ones, mask, importance_PKT=weight)
    torch.testing.assert_close(loss[mask], torch.tensor([-1.5, -0.25, -2.0, -2.0]))


def mean(metrics: Metrics) -> dict[str, float]:
    return {name: float(value) / float(weight) for name, (value, weight) in metrics.items()}


def test_policy_metrics() -> None:
    """Differences .3, −.1, .1: only the first ratio, e^.3 with A > 0, is clipped; raising ε_high frees it."""
    logp, old, advantage = padded(LOGP), padded(OLD_LOGP), padded(WHITENED)
    ratios = [math.exp(x) for x in (0.3, -0.1, 0.1)]
    expected = {
        "policy/approxkl": (0.09 + 0.01 + 0.01) / 6,
        "policy/clipfrac": 1 / 3,
        "val/ratio": sum(ratios) / 3,
        "val/ratio_var": sum((ratio - 1) ** 2 for ratio in ratios) / 3,
    }
    assert mean(policy_metrics(logp, old, advantage, ~logp.isnan())) == pytest.approx(expected, rel=1e-5)
    free = mean(policy_metrics(logp, old, advantage, ~logp.isnan(), clip_high=0.4))
    assert free["policy/clipfrac"] == 0


def test_metrics_of_an_unmoved_policy() -> None:
    logp = padded(LOGP)
    found = mean(policy_metrics(logp, logp, padded(WHITENED), ~logp.isnan()))
    assert found == {"policy/approxkl": 0, "policy/clipfrac": 0, "val/ratio": 1, "val/ratio_var": 0}


@pytest.mark.parametrize("clip", [(0.2, 0.2), (0.1, 0.4)])
def test_clipfrac_counts_the_tokens_without_gradient(clip: tuple[float, float]) -> None:
    generator = torch.Generator().manual_seed(0)
    old, advantage = (torch.randn(4, 3, 20, generator=generator) for _ in range(2))
    logp = (old + 0.3 * torch.randn(old.shape, generator=generator)).requires_grad_()
    settings: Any = {"clip_low": clip[0], "clip_high": clip[1]}
    policy_loss(logp, old, advantage, everywhere(old), **settings).sum().backward()
    assert logp.grad is not None
    frac = mean(policy_metrics(logp, old, advantage, everywhere(old), **settings))["policy/clipfrac"]
    assert 0.1 < frac < 0.5
    assert frac == pytest.approx(float((logp.grad == 0).float().mean()))


def test_value_metrics() -> None:
    """Old values .1, .3, .2 against .6, .25, .9: the first and the last are held back; the fourth is no token."""
    value, old, returns = only([*VALUE, 9.0]), only([*OLD_VALUE, 0.0]), only([*RETURN, 9.0])
    mask = only([1.0, 1.0, 1.0, 0.0]).bool()
    assert mean(value_metrics(value, old, returns, mask)) == pytest.approx({"val/clipfrac": 2 / 3})


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_value_clipfrac_does_not_count_rounding(scale: float) -> None:
    """No value moved by as much as the clip; ``old + clamp(v − old)`` would count about 6 %."""
    generator = torch.Generator().manual_seed(0)
    old, value, returns = (scale * torch.randn(4, 3, 200, generator=generator) for _ in range(3))
    clip = 2 * float((value - old).abs().max())
    frac = mean(value_metrics(value, old, returns, everywhere(old), clip=clip))["val/clipfrac"]
    assert frac == 0
    leaf = value.clone().requires_grad_()
    value_loss(leaf, old, returns, everywhere(old), clip=scale).sum().backward()
    assert leaf.grad is not None
    frac = mean(value_metrics(value, old, returns, everywhere(old), clip=scale))["val/clipfrac"]
    assert frac == pytest.approx(float((leaf.grad == 0).float().mean()))  # the clipped loss has no gradient
    assert 0.1 < frac < 0.4


def test_explained_variance() -> None:
    returns = padded([1.0, 2.0, 3.0, 6.0])  # mean 3, squared deviations 4 + 1 + 0 + 9
    mask = ~returns.isnan()
    total = moments(returns, mask)

    def explained(values: list[float]) -> float:
        return mean(explained_variance(padded(values), returns, mask, total))["val/explained_variance"]

    assert explained([1, 2, 3, 6]) == 1
    assert explained([3, 3, 3, 3]) == 0
    assert explained([1, 2, 3, 5]) == pytest.approx(1 - 1 / 14)
    assert explained([4, 5, 6, 9]) == pytest.approx(1 - 36 / 14)  # an offset is an error


def test_micro_batches_add_up() -> None:
    """Losses and metrics of two uneven parts are those of the whole."""
    generator = torch.Generator().manual_seed(3)
    length = torch.tensor([[5, 0], [2, 3], [1, 7]])
    mask = torch.arange(7) < length[..., None]
    logp, old, advantage, value, old_value, returns = torch.randn(6, *mask.shape, generator=generator)
    total = moments(returns, mask)

    def measure(part: slice) -> dict[str, tuple[float, float]]:
        m = mask[part]
        metrics = {
            "policy": (policy_loss(logp[part], old[part], advantage[part], m).sum(), m.sum()),
            "value": (value_loss(value[part], old_value[part], returns[part], m).sum(), m.sum()),
            **policy_metrics(logp[part], old[part], advantage[part], m),
            **value_metrics(value[part], old_value[part], returns[part], m),
            **explained_variance(value[part], returns[part], m, total),
        }
        return {name: (float(x), float(weight)) for name, (x, weight) in metrics.items()}

    whole, first, second = measure(slice(None)), measure(slice(1)), measure(slice(1, 3))
    assert len(whole) == 8
    for name, (value_of, weight_of) in whole.items():
        assert first[name][0] + second[name][0] == pytest.approx(value_of, rel=1e-5), name
        assert first[name][1] + second[name][1] == pytest.approx(weight_of, rel=1e-5), name
    flat_returns, flat_values = returns[mask], value[mask]  # as scikit-learn's r2_score defines it
    r2 = 1 - ((flat_returns - flat_values) ** 2).sum() / ((flat_returns - flat_returns.mean()) ** 2).sum()
    assert whole["val/explained_variance"][0] / whole["val/explained_variance"][1] == pytest.approx(float(r2), rel=1e-5)


def test_shapes_are_checked() -> None:
    x, mask = torch.zeros(2, 1, 3), torch.ones(2, 1, 3, dtype=torch.bool)
    with pytest.raises(AssertionError, match="advantage_PKT has shape"):
        policy_loss(x, x, torch.zeros(2, 1, 1), mask)
    with pytest.raises(AssertionError, match="not bool"):
        policy_loss(x, x, x, mask.long())
    with pytest.raises(AssertionError, match="return_PKT is"):
        value_loss(x, x, x.long(), mask)
