"""One step: its gradient is clipped, demonstrations are added, and each hook of the method is called in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from align import Policy, Preferences, Trainer, TrainerConfig
from align.data.examples import tokenize
from align.method.base import Loss
from align.model.batch import Batch
from align.runs.tracker import read_records
from align.settings.adapter import Adapter
from align.system.processes import Processes
from methods import SFT
from tests.align.training.steps import Mixing, Rows, examples, stepper, weights


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
    assert record["train/grad_norm"] > 1e-2  # logged as it was before
    assert moved == pytest.approx(min(record["train/grad_norm"], bound), rel=1e-3)


def moved(model: Path, method: SFT, batch: Batch, mixed: Batch | None, *, tokens: int) -> torch.Tensor:
    """Minus the gradient of a step: SGD at rate 1, not clipped."""
    policy = Policy.load(str(model), adapter=Adapter(r=4))
    before = weights(policy)
    stepper(policy, method, tokens=tokens).step(batch, mixed)
    return weights(policy) - before


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


def test_what_is_mixed_in_is_logged_per_token(tiny_policy: Policy, pair_rows: Rows) -> None:
    """As SFT measures it."""
    data = examples(tiny_policy, pair_rows[:8])
    batch, mixed = Batch.from_examples(data[:4]), Batch.from_examples(data[4:])
    total, count = stepper(tiny_policy, SFT()).measure(mixed)["nll_per_token"]
    made = stepper(tiny_policy, Mixing(), tokens=150).step(batch, mixed)
    assert made.metrics["loss/mixed"] == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize("active", [False, True])
def test_dropout_acts_where_the_method_has_it(active: bool, tiny_model: Path, pair_rows: Rows) -> None:
    class Dropping(SFT):
        dropout = active  # pyright: ignore[reportAssignmentType]

    moved_: list[torch.Tensor] = []
    for rate in (0.0, 0.5):
        policy = Policy.load(str(tiny_model), adapter=Adapter(r=4, dropout=rate))
        torch.manual_seed(0)
        stepper(policy, Dropping()).step(Batch.from_examples(examples(policy, pair_rows[:4])))
        moved_.append(weights(policy))
    assert torch.equal(*moved_) is not active


class Watching(SFT):
    """Notes where its hooks are called: role, gradients, bfloat16."""

    seen: ClassVar[list[tuple[str, str, bool, bool]]] = []

    @property
    def trains(self) -> Any:
        return ("policy", "value")

    def note(self, hook: str, policy: Policy) -> None:
        self.seen.append((hook, policy.role, torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))

    def prepare(self, policy: Policy, batch: Batch) -> Batch:
        self.note("prepare", policy)
        return batch

    def loss(self, policy: Policy, batch: Batch) -> Any:
        self.note("loss", policy)
        if policy.role == "policy":
            return super().loss(policy, batch)
        values = policy.values(batch).sum()
        return Loss({"value": values}, {"value": (values.detach(), float(batch.tokens))})


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_where_each_hook_is_called(
    precision: str, tiny_policy: Policy, pair_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each trained role over the same prepared micro-batches; preparing and measuring record no gradients."""
    monkeypatch.setattr(Watching, "seen", [])
    tiny_policy.require(("value",))
    half = precision == "bfloat16"
    made = stepper(tiny_policy, Watching(), Processes(precision), tokens=1)
    batch = Batch.from_examples(examples(tiny_policy, pair_rows[:2]))
    made.step(batch)
    assert Watching.seen == [
        *[("prepare", "policy", False, half)] * 2,
        *[("loss", "policy", True, half)] * 2,
        *[("loss", "value", True, half)] * 2,
    ]
    Watching.seen.clear()
    found = made.measure(batch)
    assert sorted(Watching.seen) == sorted(
        [("prepare", "policy", False, half), ("loss", "policy", False, half), ("loss", "value", False, half)] * 2
    )
    assert found["nll_per_token"][1] == found["value"][1] == batch.tokens
    assert made.measure(batch.select([])) == {}
