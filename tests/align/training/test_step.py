"""One step: the gradient's norm is bounded before the update, and demonstrations are added to it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from align import Policy, Preferences, Trainer, TrainerConfig
from align.data.examples import tokenize
from align.model.batch import Batch
from align.runs.tracker import read_records
from align.settings.adapter import Adapter
from align.system.processes import Processes
from align.training.step import Stepper
from methods import SFT

Rows = list[dict[str, str]]


@pytest.mark.parametrize("bound", [1e-3, 1e9])
def test_the_gradient_is_clipped_to_its_norm(bound: float, tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    """With SGD at rate 1 a step moves the weights by the clipped gradient: min(its norm, the bound)."""
    policy = Policy.load(str(tiny_model), adapter=Adapter(r=4))
    before = {name: p.detach().clone() for name, p in policy.roles.parameters("policy").items()}
    config = TrainerConfig(steps=1, batch_size=8, learning_rate=1.0, optimizer="sgd", warmup=0, max_length=200)
    config = TrainerConfig(**{**vars(config), "max_grad_norm": bound, "schedule": "constant"})
    folder = Trainer(policy, tmp_path / "run", config).fit(SFT(), Preferences.from_rows(pair_rows)).folder
    after = policy.roles.parameters("policy")
    moved = torch.cat([(after[name] - before[name]).flatten() for name in before]).norm().item()
    (record,) = read_records(folder / "metrics.jsonl")
    assert record["grad_norm"] > 1e-2  # logged as it was before
    assert moved == pytest.approx(min(record["grad_norm"], bound), rel=1e-3)


class Mixing(SFT):
    mixing = 2.5  # pyright: ignore[reportAssignmentType]


def moved(model: Path, method: SFT, batch: Batch, mixed: Batch | None, *, tokens: int) -> torch.Tensor:
    """Minus the gradient of a step: SGD at rate 1, not clipped."""
    policy = Policy.load(str(model), adapter=Adapter(r=4))
    parameters = list(policy.parameters(method.trains).values())
    before = torch.cat([p.detach().flatten() for p in parameters])
    stepper = Stepper(
        policy,
        method,
        Processes(),
        torch.optim.SGD(parameters, lr=1.0),
        tokens_per_microbatch=tokens,
        max_grad_norm=float("inf"),
    )
    stepper.step(batch, mixed)
    return torch.cat([p.detach().flatten() for p in parameters]) - before


@pytest.mark.parametrize("tokens", [100_000, 100])
def test_demonstrations_add_their_mean_over_all_of_their_tokens(
    tokens: int, tiny_model: Path, pair_rows: Rows, tiny_policy: Policy
) -> None:
    """That is γ times the gradient of SFT on them, however they are cut into micro-batches."""
    data = tokenize(Preferences.from_rows(pair_rows[:12]), tiny_policy.tokenizer, max_length=200, unit="demonstration")
    batch, mixed = Batch.from_examples(data[:4]), Batch.from_examples(data[4:])
    assert (len(list(mixed.micro_batches(tokens, tiny_policy.layout))) > 1) == (tokens < 1000)
    plain, alone = (moved(tiny_model, SFT(), part, None, tokens=100_000) for part in (batch, mixed))
    found = moved(tiny_model, Mixing(), batch, mixed, tokens=tokens)
    torch.testing.assert_close(found, plain + 2.5 * alone, atol=1e-6, rtol=1e-4)
