"""A step that fails names the rows or the setting to lower, and leaves weights and gradients as they were."""

from __future__ import annotations

import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from align import Policy
from align.model.batch import Batch
from align.settings.adapter import Adapter
from align.system.processes import Processes
from align.training.state import TrainingState
from align.training.step import BrokenUpdateError, TrainingError
from methods import SFT
from tests.align.training.steps import Rows, examples, stepper, weights


class Poisoned(SFT):
    """Its loss is infinite or fails where the batch has one of these rows."""

    bad: ClassVar[dict[int, Any]] = {}

    def loss(self, policy: Policy, batch: Batch) -> Any:
        made = super().loss(policy, batch)
        for row in batch.rows:
            if isinstance(self.bad.get(row), Exception):
                raise self.bad[row]
            if row in self.bad:
                made = type(made)({"policy": made.sums["policy"] * self.bad[row]}, made.metrics)
        return made


@pytest.mark.parametrize(("tokens", "rows"), [(1, "1, 2, 5"), (100_000, "0, 1, 2, 3, 4, 5, 6, 7")])
def test_the_rows_of_a_loss_that_is_not_finite_are_those_of_its_micro_batch(
    tokens: int, rows: str, tiny_model: Path, pair_rows: Rows, at_ranks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows 0 to 3 are one rank's, 4 to 7 the other's. Both are told all, and nothing moves."""
    monkeypatch.setattr(Poisoned, "bad", {5: math.inf, 2: math.nan, 1: math.inf})

    policies = [Policy.load(str(tiny_model), adapter=Adapter(r=4)) for _ in range(2)]

    def run(processes: Processes) -> str:
        policy = policies[processes.rank]
        before = weights(policy)
        batch = Batch.from_examples(examples(policy, pair_rows[:8])).select(
            [[0, 1, 2, 3], [4, 5, 6, 7]][processes.rank]
        )
        with pytest.raises(TrainingError) as caught:
            stepper(policy, Poisoned(), processes, tokens=tokens).step(batch)
        assert torch.equal(weights(policy), before)
        assert all(p.grad is None for p in policy.roles.parameters("policy").values())
        return str(caught.value)

    first, second = at_ranks(2, run)
    assert first == second
    words = f"the loss is not finite; no parameter was changed. Rows of the training data in question: {rows}. Lower"
    assert first.startswith(words)


def test_a_gradient_that_is_not_finite_names_all_rows_of_the_step(tiny_policy: Policy, pair_rows: Rows) -> None:
    """Eight of them are shown."""
    for number, shown in ((8, "0, 1, 2, 3, 4, 5, 6, 7. Lower"), (10, "0, 1, 2, 3, 4, 5, 6, 7, … (10 in all). Lower")):
        batch = Batch.from_examples(examples(tiny_policy, pair_rows[:number]))
        with pytest.raises(TrainingError, match=re.escape(shown)) as caught:
            stepper(tiny_policy, Steep()).step(batch)
        assert str(caught.value).startswith("the gradient is not finite; no parameter was changed.")
        assert all(p.grad is None for p in tiny_policy.roles.parameters("policy").values())


class Steep(SFT):
    """A loss of 0 with an infinite gradient: √x at 0."""

    def loss(self, policy: Policy, batch: Batch) -> Any:
        made = super().loss(policy, batch)
        parameter = next(iter(policy.roles.parameters("policy").values()))
        return type(made)({"policy": made.sums["policy"] + (parameter.sum() * 0).sqrt()}, made.metrics)


@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_rows_without_weight_are_named(weight: float, tiny_policy: Policy, pair_rows: Rows) -> None:
    class Weightless(SFT):
        def weight(self, batch: Batch) -> float:
            return weight * batch.P

    batch = Batch.from_examples(examples(tiny_policy, pair_rows[:3])).select([2, 0])
    with pytest.raises(TrainingError, match=rf"the weights of rows 0, 2 sum to {weight * 2}; nothing to learn from\."):
        stepper(tiny_policy, Weightless()).step(batch)


@pytest.mark.parametrize(
    "text",
    [
        "DefaultCPUAllocator: can't allocate memory: you tried",
        "CUDA out of memory. Tried",
        "DefaultCPU: not enough memory:",
    ],
)
@pytest.mark.parametrize("hook", ["prepare", "loss"])
def test_out_of_memory_leaves_no_gradient(
    text: str, hook: str, tiny_policy: Policy, pair_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes with the last micro-batch, when there are gradients of the others."""
    batch = Batch.from_examples(examples(tiny_policy, pair_rows[:3]))
    *_, last = batch.micro_batches(1, tiny_policy.layout)
    original = getattr(SFT, hook)

    def full(self: SFT, policy: Policy, part: Batch) -> Any:
        if part.rows == last.rows:
            raise RuntimeError(text)
        return original(self, policy, part)

    monkeypatch.setattr(SFT, hook, full)
    with pytest.raises(TrainingError, match=r"out of memory with trainer\.tokens_per_microbatch=1; lower it"):
        stepper(tiny_policy, SFT(), tokens=1).step(batch)
    assert all(p.grad is None for p in tiny_policy.roles.parameters("policy").values())
    if hook == "loss":
        with pytest.raises(TrainingError, match=r"trainer\.tokens_per_microbatch=1; lower it"):
            stepper(tiny_policy, SFT(), tokens=1).measure(batch)


def test_half_of_an_update_is_no_step(tiny_policy: Policy, pair_rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory runs out when some parameters have changed: the state is not saved as that of the step before."""
    made = stepper(tiny_policy, SFT())
    monkeypatch.setattr(made.optimizer, "step", exhausted)
    with pytest.raises(BrokenUpdateError, match=r"middle of an update \(.*can't allocate.*the last checkpoint"):
        made.step(Batch.from_examples(examples(tiny_policy, pair_rows[:3])))
    store = SimpleNamespace(save=lambda *_, **__: pytest.fail("it was saved"))
    parts: Any = {"schedule": None, "source": None, "store": store, "stop": None}
    state = TrainingState(stepper=made, steps=9, **parts)
    with pytest.raises(BrokenUpdateError), state.saved_if_it_fails(3):
        made._update()


def exhausted(*_: Any) -> None:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), TrainingError("out of memory elsewhere"), KeyError("x")]
)
def test_other_errors_are_raised_as_they_are_and_leave_no_gradient(
    error: Exception, tiny_policy: Policy, pair_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = Batch.from_examples(examples(tiny_policy, pair_rows[:3]))
    *_, last = batch.micro_batches(1, tiny_policy.layout)  # when there are gradients of the others
    monkeypatch.setattr(Poisoned, "bad", {last.rows[0]: error})
    with pytest.raises(type(error)) as caught:
        stepper(tiny_policy, Poisoned(), tokens=1).step(batch)
    assert caught.value is error
    assert all(p.grad is None for p in tiny_policy.roles.parameters("policy").values())
