"""SimPO, ORPO and CPO: vectors by hand, TRL's own functions on the same tensors, likelihoods of 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from align.method.base import Method
from align.model.batch import Batch
from methods.reference_free.cpo import CPO
from methods.reference_free.orpo import ORPO, log_odds, odds_ratio_loss
from methods.reference_free.simpo import SimPO, alpha_reward
from tests.methods import trl_tensors
from tests.methods.dpo.test_losses import Table, gradient, whole_step, world

# y1 and y2 of docs/methods.md: S −3 and −1.2, M −1 and −.6.
Y1, Y2 = [-0.5, -1.0, -1.5], [-0.8, -0.4]
BY_HAND: list[tuple[Method, float, float]] = [  # w = y1, l = y2; and the other way round
    (SimPO(), 1.952978, 0.798139),  # −log σ(−1.8), −log σ(−.2)
    (SimPO(alpha=0.25), 2.107163, 0.704446),  # r = −1.136102 and −.647337
    (ORPO(), 1.112819, 0.639100),  # log odds −.541325 and .195870
    (CPO(), 1.787192, 1.207192),  # −log σ(∓.18), and 1 or .6
    (CPO(sft_weight=0.0, alpha=0.25), 0.858300, 0.551443),  # r = −4.468000 and −1.399435
]


@pytest.mark.parametrize(("method", "first", "second"), BY_HAND)
def test_by_hand(method: Method, first: float, second: float, stub: Any, like: Callable[..., Batch]) -> None:
    for table, expected in (([[Y1, Y2]], first), ([[Y2, Y1]], second)):
        found = whole_step(method, stub(policy=table), [like(table)])
        assert found.item() == pytest.approx(expected, abs=5.1e-7)


def sums_and_means(policy: Table, batch: Batch) -> tuple[Tensor, Tensor]:
    S_PK = policy.tables["policy"].where(batch.mask_PKT, 0).sum(-1)
    return S_PK, S_PK / batch.length_PK


def _expected(name: str, policy: Table, batch: Batch) -> tuple[Method, Tensor]:
    S_PK, M_PK = sums_and_means(policy, batch)
    nll = -S_PK[:, 0].sum() / batch.length_PK[:, 0].sum()  # TRL: mean cross-entropy over the batch's chosen tokens
    simpo = {"beta": 2.5, "simpo_gamma": 1.0, "loss_type": "simpo"}
    match name:
        case "SimPO":
            return SimPO(beta=2.5, gamma_ratio=0.4), trl_tensors.cpo(M_PK, **simpo)
        case "AlphaPO":
            return SimPO(beta=2.5, gamma_ratio=0.4, alpha=0.25), trl_tensors.cpo(M_PK, **simpo, alpha=0.25)
        case "CPO":
            return CPO(beta=0.3, sft_weight=0.7), trl_tensors.cpo(S_PK, beta=0.3) + 0.7 * nll
        case "CPO, α":
            return CPO(beta=0.3, alpha=0.1), trl_tensors.cpo(S_PK, beta=0.3, alpha=0.1) + nll
        case _:
            return ORPO(lam=0.3), -M_PK[:, 0].mean() - trl_tensors.orpo(M_PK, 0.3)


@pytest.mark.parametrize("name", ["SimPO", "AlphaPO", "CPO", "CPO, α", "ORPO"])
@pytest.mark.parametrize("ways", ["one batch", "micro-batches", "two ranks"])
def test_against_trl(name: str, ways: str) -> None:
    policy, batch = world()
    method, expected = _expected(name, policy, batch)
    parts = [batch] if ways == "one batch" else [batch.select([p]) for p in (3, 0, 4, 1, 2)]
    found = whole_step(method, policy, parts, ranks=2 if ways == "two ranks" else 1)
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)
    torch.testing.assert_close(gradient(policy, found), gradient(policy, expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", [SimPO(), ORPO(), CPO()])
def test_weights_and_metrics(method: Any, stub: Any, like: Callable[..., Batch]) -> None:
    """A pair of weight 3 counts as three; CPO's cross-entropy is a mean over the tokens that pairs weigh."""
    table = [[Y1, Y2], [Y2, Y1]]
    once = whole_step(method, stub(policy=table), [like(table, weights=[1.0, 3.0])])
    thrice = [table[0], table[1], table[1], table[1]]
    assert once.item() == pytest.approx(whole_step(method, stub(policy=thrice), [like(thrice)]).item(), abs=1e-7)
    (batch,) = method.prepare_step(None, [like(table)], lambda make: [make()])
    metrics = method.loss(stub(policy=table), batch).metrics
    value = {name: float(total) / float(weight) for name, (total, weight) in metrics.items()}
    assert value["rewards/accuracies"] == 0.5
    assert value["logps/chosen"] == pytest.approx(-2.1)
    if "loss/sft" in value:
        assert value["loss"] == pytest.approx(value["loss/sft"] + value["loss/preference"])


def test_odds_of_certain_responses() -> None:
    """p = 1 to the last bit, and next to it: finite values and gradients, in float32 and from bfloat16."""
    tiny = torch.finfo(torch.float32).tiny
    M = torch.tensor([0.0, -tiny, -1e-30, -1e-9, -1e-3, -50.0], requires_grad=True)
    assert log_odds(M).tolist()[1:] == pytest.approx([87.336545, 69.077553, 20.723266, 6.907255, -50.0], rel=1e-6)
    odds_ratio_loss(M, M.detach().flip(0)).sum().backward()
    assert M.grad is not None
    assert bool(torch.isfinite(M.grad).all())
    assert log_odds(torch.tensor([-1.0]).bfloat16()).dtype == torch.float32


def test_alpha_reward_near_zero() -> None:
    logp = torch.tensor([-3.0, -0.1, 0.0], dtype=torch.float64)
    torch.testing.assert_close(alpha_reward(logp, 1e-9), logp, atol=1e-7, rtol=0)
    assert alpha_reward(logp, 0.0) is logp
