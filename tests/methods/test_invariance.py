"""The result of an optimiser step does not depend on micro-batches, layout, or where the reference comes from."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from align.method.base import Method
from align.model.batch import Batch
from align.model.policy import Policy
from align.system.processes import Processes
from align.training.step import Stepper
from methods.dpo import DPO
from methods.rrhf import RRHF
from methods.sft import SFT
from methods.slic import SLiC

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

METHODS = {
    "dpo": DPO(),
    "cdpo": DPO(loss_type="cdpo", label_smoothing=0.1),
    "robust": DPO(loss_type="robust", label_smoothing=0.1),
    "ipo": DPO(loss_type="ipo"),
    "ipo sums": DPO(loss_type="ipo", ipo_sums=True),
    "hinge": DPO(loss_type="hinge"),
    "sft token mean": SFT(),
    "sft sequence mean": SFT(reduction="sequence_mean"),
    "sft sequence sum": SFT(reduction="sequence_sum"),
    "rrhf": RRHF(),
    "rrhf code kl": RRHF(form="code", rank_weight=10.0, kl_coef=0.5),
    "slic": SLiC(delta=5.0),
    "slic best": SLiC(delta=5.0, target="best"),
    "slic sft": SLiC(delta=5.0, target="sft"),
    "slic means": SLiC(normalize_length=True),
}
VOCABULARY = 17
UNEVEN = [(3, 9, 4), (12, 2, 7), (1, 5, 1), (8, 1, 13), (5, 11, 11), (2, 3, 2), (15, 6, 8)]  # prompt, responses
RAGGED = [(3, 9, 4, 2), (12, 2, 7), (1, 5, 1, 3, 6), (8, 1, 13), (5, 11, 11), (2, 3, 2, 8, 1, 4), (15, 6, 8)]


class Recorder(torch.optim.SGD):
    """Keeps the gradient of a step and changes no parameter."""

    gradient: Tensor

    def step(self, closure: Any = None) -> None:  # noqa: ARG002
        parameters = [p for group in self.param_groups for p in group["params"]]
        self.gradient = torch.cat([p.grad.flatten() for p in parameters])


def one_step(policy: Policy, method: Method, batch: Batch, tokens: int) -> tuple[float, Tensor]:
    """Loss and gradient of one optimiser step."""
    recorder = Recorder(policy.roles.parameters("policy").values(), lr=0.0)
    stepper = Stepper(
        policy,
        method,
        Processes(),
        recorder,
        tokens_per_microbatch=tokens,
        max_grad_norm=float("inf"),
    )
    return stepper.step(batch).metrics["loss"], recorder.gradient


def random_batch(lengths: Sequence[tuple[int, ...]], seed: int = 0) -> Batch:
    """A prompt and its responses per tuple of lengths, compared at random in part, with uneven weights."""
    generator = random.Random(seed)
    ids = [[[generator.randrange(3, VOCABULARY) for _ in range(n)] for n in row] for row in lengths]
    K = max(map(len, lengths)) - 1
    better_PKK = torch.zeros(len(ids), K, K, dtype=torch.bool)
    for p, row in enumerate(ids):
        better_PKK[p, 0, 1] = True
        for i in range(2, len(row) - 1):
            better_PKK[p, i, generator.randrange(i)] = generator.random() < 0.7
    return Batch(
        prompt_ids=tuple(row[0] for row in ids),
        response_ids=tuple(tuple(row[1:]) for row in ids),
        rows=tuple(range(len(ids))),
        columns={
            "weight_P": torch.tensor([generator.choice([0.5, 1.0, 2.0]) for _ in ids]),
            "better_PKK": better_PKK,
        },
    )


def first_responses(batch: Batch) -> Batch:
    """The batch with its chosen responses alone, as demonstrations."""
    return Batch(batch.prompt_ids, tuple(row[:1] for row in batch.response_ids), batch.rows, batch.columns)


def difference(found: Tensor, expected: Tensor) -> float:
    """Relative difference in the Euclidean norm."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize(("name", "layout"), [*((name, "tree") for name in METHODS), ("dpo", "flat"), ("ipo", "flat")])
def test_micro_batches_change_nothing(name: str, layout: str, make_policy: Callable[..., Policy]) -> None:
    """Budgets that cut the step into 7 parts, into several uneven ones, and not at all."""
    method, policy = METHODS[name], make_policy(layout=layout)
    batch = random_batch(RAGGED if method.unit == "ranking" else UNEVEN)
    if method.unit == "demonstration":
        batch = first_responses(batch)
    whole_loss, whole_gradient = one_step(policy, method, batch, 10**9)
    for tokens in (1, 60):
        assert len(list(batch.micro_batches(tokens, policy.layout))) > 1
        loss, gradient = one_step(policy, method, batch, tokens)
        assert loss == pytest.approx(whole_loss, rel=1e-6)
        assert difference(gradient, whole_gradient) <= 1e-6


@pytest.mark.parametrize(("name", "lengths"), [("dpo", UNEVEN), ("rrhf code kl", RAGGED), ("slic best", RAGGED)])
def test_layouts_agree(name: str, lengths: Sequence[tuple[int, ...]], make_policy: Callable[..., Policy]) -> None:
    method, batch = METHODS[name], random_batch(lengths)
    tree_loss, tree_gradient = one_step(make_policy(layout="tree"), method, batch, 100)
    flat_loss, flat_gradient = one_step(make_policy(layout="flat"), method, batch, 100)
    assert tree_loss == pytest.approx(flat_loss, rel=1e-5)
    assert difference(tree_gradient, flat_gradient) <= 1e-5


def test_cached_reference_is_the_live_one(make_policy: Callable[..., Policy]) -> None:
    """The reference is computed while the policy is at its start, and used when it has moved away."""
    policy, batch = make_policy(), random_batch(UNEVEN)
    moved = {name: p.detach().clone() for name, p in policy.roles.parameters("policy").items()}
    with torch.no_grad():
        for name, parameter in policy.roles.parameters("policy").items():
            if "lora_B" in name:
                parameter.zero_()
        cached = DPO(reference="cached").prepare(policy, batch)
        for name, parameter in policy.roles.parameters("policy").items():
            parameter.copy_(moved[name])
    live_loss, live_gradient = one_step(policy, DPO(), batch, 100)
    cached_loss, cached_gradient = one_step(policy, DPO(reference="cached"), cached, 100)
    assert cached_loss != pytest.approx(0.693147, abs=1e-3)
    assert cached_loss == pytest.approx(live_loss, rel=1e-6)
    assert difference(cached_gradient, live_gradient) <= 1e-6
