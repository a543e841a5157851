"""The DPO family: the vectors of docs/methods.md on the pure losses and `DPO.loss`, errors, weights, reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from align.errors import UserError
from align.model.batch import Batch
from methods.dpo.dpo import DPO
from methods.dpo.losses import cdpo_loss, dpo_loss, hinge_loss, ipo_loss, robust_loss

# Chosen S −3.0 (3 tokens), rejected S −1.2 (2 tokens); reference −3.5 and −1.0, so h = .7.
POLICY = [[[-0.5, -1.0, -1.5], [-0.8, -0.4]]]
REFERENCE = [[[-1.0, -1.0, -1.5], [-0.4, -0.6]]]
H, H_OF_MEANS = 0.7, 0.5 / 3 + 0.2 / 2

TABLE = [  # settings, values at β=.1 and β=.5 as printed in docs/methods.md
    ({"loss_type": "sigmoid"}, 0.658760, 0.533382),
    ({"loss_type": "cdpo", "label_smoothing": 0.1}, 0.665760, 0.568382),
    ({"loss_type": "robust", "label_smoothing": 0.1}, 0.650010, 0.489632),
    ({"loss_type": "ipo", "ipo_sums": True}, 18.49, 0.09),
    ({"loss_type": "ipo"}, 22.404444, 0.537778),
    ({"loss_type": "hinge"}, 0.93, 0.65),
]
CASES = [(settings, beta, row[i]) for settings, *row in TABLE for i, beta in enumerate((0.1, 0.5))]
PRINTED = 5.1e-7  # half a unit of the last printed digit


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def pure_loss(settings: dict[str, Any], beta: float) -> Tensor:
    match settings:
        case {"loss_type": "sigmoid"}:
            return dpo_loss(scalar(H), beta)
        case {"loss_type": "cdpo", "label_smoothing": epsilon}:
            return cdpo_loss(scalar(H), beta, epsilon)
        case {"loss_type": "robust", "label_smoothing": epsilon}:
            return robust_loss(scalar(H), beta, epsilon)
        case {"loss_type": "ipo"}:
            return ipo_loss(scalar(H if "ipo_sums" in settings else H_OF_MEANS), beta)
        case _:
            return hinge_loss(scalar(H), beta)


@pytest.mark.parametrize(("settings", "beta", "expected"), CASES)
def test_pure_losses(settings: dict[str, Any], beta: float, expected: float) -> None:
    assert pure_loss(settings, beta).item() == pytest.approx(expected, abs=PRINTED)


@pytest.mark.parametrize(("settings", "beta", "expected"), CASES)
@pytest.mark.parametrize("reference", ["live", "cached"])
def test_loss_of_a_batch(
    settings: dict[str, Any], beta: float, expected: float, reference: Any, stub: Any, like: Callable[..., Batch]
) -> None:
    method = DPO(beta=beta, reference=reference, **settings)
    policy, batch = stub(policy=POLICY, reference=REFERENCE), like(POLICY)
    if reference == "cached":  # before the first step the policy is the reference
        batch = method.prepare(stub(policy=REFERENCE), batch)
        assert set(method.cached_columns(passes=1)) <= set(batch.columns)
    batch = method.prepare(policy, batch)
    assert method.weight(batch) == 1
    loss = method.loss(policy, batch)
    assert loss.sums["policy"].item() == pytest.approx(expected, abs=PRINTED)
    assert float(loss.metrics["loss"][0]) == pytest.approx(expected, abs=PRINTED)


@pytest.mark.parametrize(("beta", "expected"), [(0.1, 0.048251), (0.5, 0.206691)])
def test_gradient_weight(beta: float, expected: float, stub: Any, like: Callable[..., Batch]) -> None:
    h = scalar(H)
    dpo_loss(h, beta).backward()
    assert h.grad is not None
    assert h.grad.item() == pytest.approx(-expected, abs=PRINTED)

    method, policy = DPO(beta=beta), stub(policy=POLICY, reference=REFERENCE)
    method.loss(policy, method.prepare(policy, like(POLICY))).sums["policy"].backward()
    tokens = [[[-expected] * 3, [expected] * 2 + [0.0]]]  # up on the chosen, down on the rejected, none on padding
    torch.testing.assert_close(policy.logp_PKT.grad, torch.tensor(tokens, dtype=torch.float64), atol=PRINTED, rtol=0)


def test_metrics(stub: Any, like: Callable[..., Batch]) -> None:
    """Implicit rewards at β=.1 are .05 and −.02; the second pair, weight 3, has them the other way round: h = −.7."""
    method, both = DPO(), [POLICY[0], POLICY[0][::-1]]
    policy = stub(policy=both, reference=[REFERENCE[0], REFERENCE[0][::-1]])
    batch = method.prepare(policy, like(both, weights=[1.0, 3.0]))
    metrics = method.loss(policy, batch).metrics
    value = {name: float(total) / float(weight) for name, (total, weight) in metrics.items()}
    assert value == pytest.approx(
        {
            "loss": (0.658760 + 3 * (0.658760 + 0.1 * H)) / 4,  # −log σ(−x) = −log σ(x) + x
            "rewards/chosen": (0.05 - 3 * 0.02) / 4,
            "rewards/rejected": (-0.02 + 3 * 0.05) / 4,
            "rewards/accuracies": 1 / 4,
            "rewards/margins": (0.07 - 3 * 0.07) / 4,
            "logps/chosen": (-3.0 - 3 * 1.2) / 4,
            "logps/rejected": (-1.2 - 3 * 3.0) / 4,
        },
        abs=PRINTED,
    )
    assert DPO.headline in metrics


def test_metrics_of_one_pair(stub: Any, like: Callable[..., Batch]) -> None:
    policy = stub(policy=POLICY, reference=REFERENCE)
    metrics = DPO().loss(policy, DPO().prepare(policy, like(POLICY))).metrics
    assert float(metrics["rewards/chosen"][0]) == pytest.approx(0.05)
    assert float(metrics["rewards/rejected"][0]) == pytest.approx(-0.02)
    assert float(metrics["rewards/margins"][0]) == pytest.approx(0.07)
    assert float(metrics["rewards/accuracies"][0]) == 1


def test_pairs_have_weights(stub: Any, like: Callable[..., Batch]) -> None:
    """Weights 2 and ½ on h = .7 and h = −.7 at β=.5."""
    method, both = DPO(beta=0.5), [POLICY[0], POLICY[0][::-1]]
    policy = stub(policy=both, reference=[REFERENCE[0], REFERENCE[0][::-1]])
    batch = method.prepare(policy, like(both, weights=[2.0, 0.5]))
    assert method.weight(batch) == 2.5
    expected = (2 * 0.533382 + 0.5 * (0.533382 + 0.5 * H)) / 2.5
    assert method.loss(policy, batch).sums["policy"].item() / 2.5 == pytest.approx(expected, abs=PRINTED)


def test_the_policy_at_its_reference(stub: Any, like: Callable[..., Batch]) -> None:
    method, policy = DPO(), stub(policy=POLICY, reference=POLICY)
    loss = method.loss(policy, method.prepare(policy, like(POLICY)))
    assert loss.sums["policy"].item() == pytest.approx(0.693147, abs=PRINTED)
    assert float(loss.metrics["rewards/margins"][0]) == 0
    assert float(loss.metrics["rewards/accuracies"][0]) == 0.5  # a tie counts half


def test_the_reference_role_is_used_and_restored(stub: Any, like: Callable[..., Batch]) -> None:
    policy = stub(policy=POLICY, reference=REFERENCE)
    batch = DPO().prepare(policy, like(POLICY))
    torch.testing.assert_close(batch["reference_PK"], torch.tensor([[-3.5, -1.0]], dtype=torch.float64))
    assert policy.role == "policy"
    assert DPO().frozen == ("reference",)
    assert DPO(reference="cached").frozen == ()


def test_when_the_reference_is_asked_before_the_first_step() -> None:
    """Where pairs are met again, and not where the reference moves."""
    once = ("reference_PK",)
    assert [DPO().cached_columns(passes) for passes in (0.5, 1, 1.01, 2)] == [(), (), once, once]
    assert DPO(reference="live").cached_columns(2) == DPO(sync_steps=5).cached_columns(2) == ()
    assert DPO(reference="cached").cached_columns(0.5) == once


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0.0}, r"method\.beta=0\.0"),
        ({"beta": -0.1}, r"method\.beta=-0\.1"),
        ({"beta": float("nan")}, r"method\.beta=nan"),
        ({"beta": float("inf")}, r"method\.beta=inf"),
        ({"loss_type": "simpo"}, r"loss_type must be sigmoid, cdpo, .*, sft or a list of them, not 'simpo'\."),
        ({"label_smoothing": 0.1}, r"method\.label_smoothing=0\.1"),
        ({"label_smoothing": 0.1, "loss_type": "ipo"}, r"method\.label_smoothing=0\.1"),
        ({"label_smoothing": 0.5, "loss_type": "robust"}, r"method\.label_smoothing=0\.5"),
        ({"label_smoothing": -0.1, "loss_type": "cdpo"}, r"method\.label_smoothing=-0\.1"),
        ({"label_smoothing": float("nan"), "loss_type": "cdpo"}, r"method\.label_smoothing=nan"),
        ({"ipo_sums": True}, r"method\.ipo_sums=true"),
        ({"reference": "none"}, r"reference must be auto, live or cached, not 'none'\."),
    ],
)
def test_construction_errors(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DPO(**settings)
