"""One step: the same on any number of ranks, bounded, with demonstrations added; and what it says where it fails."""

from __future__ import annotations

import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from align import Policy, Preferences, Trainer, TrainerConfig
from align.data.examples import tokenize
from align.method.base import Loss
from align.model.batch import Batch
from align.runs.tracker import read_records
from align.settings.adapter import Adapter
from align.system.processes import Processes, add_metrics
from align.training.state import TrainingState
from align.training.step import BrokenUpdateError, Stepper, TrainingError
from methods import BCO, CPO, DPO, KTO, SFT

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
    assert record["train/grad_norm"] > 1e-2  # logged as it was before
    assert moved == pytest.approx(min(record["train/grad_norm"], bound), rel=1e-3)


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


def stepper(
    policy: Policy, method: Any, processes: Any = None, *, tokens: int = 100_000, bound: float = 1e9
) -> Stepper:
    parameters = list(policy.parameters(method.trains).values())
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    processes = processes or Processes()
    return Stepper(policy, method, processes, optimizer, tokens_per_microbatch=tokens, max_grad_norm=bound)


def examples(policy: Policy, rows: Rows, unit: Any = "demonstration") -> Any:
    return tokenize(Preferences.from_rows(rows), policy.tokenizer, max_length=200, unit=unit)


def weights(policy: Policy) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in policy.roles.parameters("policy").values()])


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
    rows: Any = [{**row, "weight": float(i not in weightless)} for i, row in enumerate(pair_rows[:12])]
    policies = [Policy.load(str(tiny_model), adapter=Adapter(r=4)) for _ in range(4)]
    for policy in policies:
        policy.require(method.roles)
        generator = torch.Generator().manual_seed(3)
        for name, parameter in policy.roles.parameters("policy").items():
            if "lora_B" in name:
                parameter.data.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    data = examples(policies[0], rows, method.unit)

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
