"""SFT: the vectors of docs/methods.md, weights, and independence of the micro-batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from align.errors import UserError
from align.evaluation.measurement import Measurement, Sample
from methods.sft import SFT, sft_loss

Y1 = [-0.5, -1.0, -1.5]
Y2 = [-0.8, -0.4]
VECTORS = {"token_mean": 0.84, "sequence_mean": 0.80, "sequence_sum": 2.1}


@pytest.mark.parametrize(("reduction", "denominator"), [("token_mean", 5), ("sequence_mean", 2), ("sequence_sum", 2)])
def test_pure_loss(reduction: Any, denominator: int) -> None:
    logp_PKT = torch.tensor([[Y1], [[*Y2, 99.0]]], dtype=torch.float64)
    mask_PKT = torch.tensor([[[True, True, True]], [[True, True, False]]])
    loss_PK = sft_loss(logp_PKT, mask_PKT, reduction=reduction)
    assert loss_PK.shape == (2, 1)
    assert loss_PK.sum().item() / denominator == pytest.approx(VECTORS[reduction], abs=1e-12)


@pytest.mark.parametrize(
    ("reduction", "expected"), [("token_mean", 0.326686), ("sequence_mean", 0.324538), ("sequence_sum", 0.816716)]
)
def test_dft(reduction: Any, expected: float, stub: Any, like: Callable[..., Any]) -> None:
    """−p·log p of the tokens: .303265, .367879, .334695 (y1) and .359463, .268128 (y2); the gradient is −p."""
    table = [[Y1], [Y2]]
    method, policy, batch = SFT(loss_type="dft", reduction=reduction), stub(policy=table), like(table)
    loss = method.loss(policy, batch)
    value, weight = loss.metrics["loss"]
    assert float(value) / float(weight) == pytest.approx(expected, abs=1e-6)
    nll, tokens = loss.metrics["nll_per_token"]  # is comparable with that of cross-entropy
    assert float(nll) / float(tokens) == pytest.approx(0.84)
    (loss.sums["policy"] / method.weight(batch)).backward()
    each = {"token_mean": (1 / 5, 1 / 5), "sequence_mean": (1 / 6, 1 / 4), "sequence_sum": (1 / 2, 1 / 2)}[reduction]
    p = [[0.606530660, 0.367879441, 0.223130160], [0.449328964, 0.670320046, 0.0]]
    gradient = torch.tensor([[[-each[i] * x for x in row]] for i, row in enumerate(p)], dtype=torch.float64)
    torch.testing.assert_close(policy.logp_PKT.grad, gradient, atol=1e-9, rtol=0)


@pytest.mark.parametrize("padding", [99.0, float("inf"), float("nan")])
def test_padding_teaches_nothing(padding: float) -> None:
    """A token of probability 0 neither: its loss is 0, not NaN."""
    logp_PKT = torch.tensor([[[-0.5, padding]], [[-1e4, -0.5]]], requires_grad=True)
    mask_PKT = torch.tensor([[[True, False]], [[True, True]]])
    loss_PK = sft_loss(logp_PKT, mask_PKT, loss_type="dft")
    assert loss_PK.flatten().tolist() == pytest.approx([0.303265, 0.303265], abs=1e-6)
    loss_PK.sum().backward()
    assert logp_PKT.grad is not None
    assert logp_PKT.grad.flatten().tolist() == pytest.approx([-0.606531, 0, 0, -0.606531], abs=1e-6)


@pytest.mark.parametrize("reduction", VECTORS)
def test_loss_over_weight(reduction: Any, stub: Any, like: Callable[..., Any]) -> None:
    table = [[Y1], [Y2]]
    method, policy, batch = SFT(reduction=reduction), stub(policy=table), like(table)
    loss = method.loss(policy, batch)
    assert set(loss.sums) == {"policy"}
    assert loss.sums["policy"].item() / method.weight(batch) == pytest.approx(VECTORS[reduction], abs=1e-12)
    value, weight = loss.metrics["loss"]
    assert float(value) / float(weight) == pytest.approx(VECTORS[reduction], abs=1e-12)


@pytest.mark.parametrize("reduction", VECTORS)
def test_gradient_reaches_response_tokens_only(reduction: Any, stub: Any, like: Callable[..., Any]) -> None:
    table = [[Y1], [Y2]]
    method, policy, batch = SFT(reduction=reduction), stub(policy=table), like(table)
    (method.loss(policy, batch).sums["policy"] / method.weight(batch)).backward()
    each = {"token_mean": (1 / 5, 1 / 5), "sequence_mean": (1 / 6, 1 / 4), "sequence_sum": (1 / 2, 1 / 2)}[reduction]
    expected = torch.tensor([[[-each[0]] * 3], [[-each[1]] * 2 + [0.0]]], dtype=torch.float64)
    torch.testing.assert_close(policy.logp_PKT.grad, expected)


@pytest.mark.parametrize(
    ("reduction", "expected"),
    # Weights 3 and 1: (3·3.0 + 1·1.2) / (3·3 + 1·2); (3·1.0 + 1·.6) / 4; (3·3.0 + 1·1.2) / 4.
    [("token_mean", 10.2 / 11), ("sequence_mean", 0.9), ("sequence_sum", 2.55)],
)
def test_rows_have_weights(reduction: Any, expected: float, stub: Any, like: Callable[..., Any]) -> None:
    table = [[Y1], [Y2]]
    method, batch = SFT(reduction=reduction), like(table, weights=[3.0, 1.0])
    loss = method.loss(stub(policy=table), batch).sums["policy"]
    assert loss.item() / method.weight(batch) == pytest.approx(expected, abs=1e-12)


def test_metrics(stub: Any, like: Callable[..., Any]) -> None:
    table = [[Y1], [Y2]]
    metrics = SFT(reduction="sequence_mean").loss(stub(policy=table), like(table)).metrics
    values = {name: float(value) / float(weight) for name, (value, weight) in metrics.items()}
    assert values == pytest.approx({"loss": 0.80, "nll_per_token": 0.84, "tokens_per_response": 2.5})
    assert SFT.headline in metrics


def test_the_best_policy_is_the_one_whose_answers_score_highest() -> None:
    """By the first scorer; without one, or without answers, none is kept."""
    samples = [Sample("p", "r", 2, 0.0, {"first": first, "second": 9.0}) for first in (1.0, 2.0)]
    assert SFT().merit(Measurement(samples)) == 1.5
    assert SFT().merit(Measurement([Sample("p", "r", 2, 0.0, {})])) is None
    assert SFT().merit(Measurement([], preferred=[1.0])) is None


def test_unknown_reduction() -> None:
    with pytest.raises(UserError, match=r"reduction must be token_mean, sequence_mean or sequence_sum, not 'mean'"):
        SFT(reduction="mean")  # pyright: ignore[reportArgumentType]


def test_unknown_loss() -> None:
    with pytest.raises(UserError, match=r"loss_type must be nll or dft, not 'dpt'\."):
        SFT(loss_type="dpt")  # pyright: ignore[reportArgumentType]
