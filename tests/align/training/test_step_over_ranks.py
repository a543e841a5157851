"""A step and its held-out metrics are the same on any number of ranks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from align import Policy
from align.method.base import Loss
from align.model.batch import Batch
from align.settings.adapter import Adapter
from align.system.processes import Processes, add_metrics
from align.training.step import Stepper
from methods import BCO, CPO, DPO, KTO, SFT
from tests.align.training.steps import Mixing, Rows, examples, stepper, weights


class Gamma(Mixing):
    """SFT whose weight is not a plain count, with demonstrations mixed in."""

    def weight(self, batch: Batch) -> float:
        return 1.5 * super().weight(batch)


@pytest.mark.parametrize("shares", [([0, 2], [1, 3, 4]), ([0, 1, 2, 3, 4], []), ([0], [1, 2, 3, 4])])
def test_ranks_make_the_step_of_one(shares: Any, tiny_model: Path, pair_rows: Rows, at_ranks: Any) -> None:
    """Weights, metrics, tokens and norm, also where a rank has no prompt, and in micro-batches."""

    policies = [Policy.load(str(tiny_model), adapter=Adapter(r=4)) for _ in range(3)]
    data = examples(policies[0], pair_rows[:9])

    def run(policy: Policy, processes: Processes, share: list[int], mixed: list[int], tokens: int) -> Any:
        batch, more = (Batch.from_examples([data[i] for i in part]) for part in (share, mixed))
        result = stepper(policy, Gamma(reduction="sequence_mean"), processes, tokens=tokens).step(batch, more)
        return weights(policy), result

    def of_rank(processes: Processes) -> Any:
        rank = processes.rank
        return run(policies[rank], processes, shares[rank], [[5], [6, 7, 8]][rank], 100)

    parts = at_ranks(2, of_rank)
    whole, alone = run(policies[2], Processes(), [0, 1, 2, 3, 4], [5, 6, 7, 8], 100_000)
    assert alone.tokens == sum(len(e.prompt_ids) + len(e.responses[0]) for e in data[:5])
    for ours, result in parts:
        torch.testing.assert_close(ours, whole, atol=1e-6, rtol=1e-4)
        assert result.metrics == pytest.approx(alone.metrics, rel=1e-5)
        assert result.tokens == alone.tokens
        assert result.grad_norm == pytest.approx(alone.grad_norm, rel=1e-5)
    assert set(alone.metrics) == {"loss", "nll_per_token", "tokens_per_response", "loss/mixed"}


class Valued(SFT):
    """SFT beside a value role, whose output embeddings no loss reaches; its rewards are 1."""

    @property
    def trains(self) -> Any:
        return ("policy", "value")

    def loss(self, policy: Policy, batch: Batch) -> Any:
        if policy.role == "policy":
            return super().loss(policy, batch)
        values = (policy.values(batch) - 1).square().sum()
        return Loss({"value": values}, {})


@pytest.mark.parametrize("shares", [([0, 2], [1, 3]), ([0, 1, 2, 3], [])])
def test_what_no_loss_reaches_is_left_at_any_number_of_ranks(
    shares: Any, tiny_model: Path, pair_rows: Rows, at_ranks: Any
) -> None:
    """The weight decay of AdamW moves what has a gradient, of zeros too; without one it leaves it."""
    policies = [Policy.load(str(tiny_model), adapter=None) for _ in range(3)]
    for policy in policies:
        policy.require(("value",))
    data = examples(policies[0], pair_rows[:4])
    start = {name: p.detach().clone() for name, p in policies[2].parameters(("policy", "value")).items()}

    def run(processes: Processes, policy: Policy, share: list[int]) -> Any:
        parameters = policy.parameters(("policy", "value"))
        optimizer = torch.optim.AdamW(parameters.values(), lr=1e-2, weight_decay=0.1)
        made = Stepper(policy, Valued(), processes, optimizer, tokens_per_microbatch=100, max_grad_norm=1.0)
        batch = Batch.from_examples([data[i] for i in share])
        for _ in range(2):
            made.step(batch)
        return {name: p.detach() for name, p in parameters.items()}, len(optimizer.state)

    alone, states = run(Processes(), policies[2], [0, 1, 2, 3])
    still = {name for name, tensor in alone.items() if torch.equal(tensor, start[name])}
    assert still == {"value.lm_head.weight"}
    for found, theirs in at_ranks(2, lambda each: run(each, policies[each.rank], shares[each.rank])):
        assert theirs == states == len(alone) - 1
        assert torch.equal(found["value.lm_head.weight"], start["value.lm_head.weight"])
        torch.testing.assert_close(found, alone, atol=2e-4, rtol=1e-3)


MIXTURE: Any = {"loss_type": ("sigmoid", "sft"), "loss_weights": (1.0, 0.5)}
STEPWISE = [KTO(beta=1.0), BCO(beta=1.0), DPO(loss_type="aot"), DPO(**MIXTURE), CPO(), SFT()]


@pytest.mark.parametrize(
    "method", STEPWISE, ids=lambda method: f"{type(method).__name__} {vars(method).get('loss_type', '')}"
)
def test_held_out_metrics_are_those_of_one_process(
    method: Any, tiny_model: Path, pair_rows: Rows, at_ranks: Any
) -> None:
    """In steps, of which one weighs nothing, and in each of the others one that is on one rank."""
    weightless = {0, 1, 2, 3, 5, 9}
    policies = [Policy.load(str(tiny_model), adapter=Adapter(r=4)) for _ in range(4)]
    for policy in policies:
        policy.require(method.roles)
        generator = torch.Generator().manual_seed(3)
        for name, parameter in policy.roles.parameters("policy").items():
            if "lora_B" in name:
                parameter.data.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    made_of = examples(policies[0], pair_rows[:12], method.unit)
    data = [replace(example, weight=float(i not in weightless)) for i, example in enumerate(made_of)]

    def run(policy: Policy, processes: Processes) -> dict[str, float]:
        found: dict[str, tuple[float, float]] = {}
        made = stepper(policy, method, processes, tokens=200)
        for start in range(0, 12, 4):
            share = [data[i] for i in processes.share(range(start, start + 4))]
            add_metrics(found, made.measure(Batch.from_examples(share)))
        return processes.reduce_metrics(found)

    alone = run(policies[3], Processes())
    assert alone["loss"] > 0
    for ranks in (2, 3):
        for theirs in at_ranks(ranks, lambda processes: run(policies[processes.rank], processes)):
            assert theirs == pytest.approx(alone, rel=1e-4)
