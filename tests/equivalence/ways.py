"""The columns of the equivalence matrix: ways of computing the same optimiser steps.

A case takes a few steps through the parts of the trainer (candidates, feed or roll-outs, stepper, checkpoint); losses,
gradients and everything that was drawn are kept.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from peft import get_peft_model
from torch import Tensor

from align.candidates.drawing import draw
from align.data import Preferences
from align.method.base import Method
from align.model.batch import Batch
from align.model.forward import Logprobs
from align.model.full_copies import FullCopies
from align.model.policy import Policy
from align.model.roles import Role, SharedBase
from align.runs.checkpoint import CheckpointStore
from align.settings.adapter import Adapter
from align.settings.config import TrainerConfig
from align.system.identity import Identity
from align.system.processes import Processes
from align.system.signals import StopRequest
from align.training.feed import Feed, Source, tokenize_for
from align.training.optimizer import make_optimizer, make_schedule
from align.training.rollout import Rollouts
from align.training.state import TrainingState
from align.training.step import Stepper
from tests.equivalence.cases import TRANSPOSED, Case, WordValues, data, network, tokenizer

ROOT = Path(__file__).resolve().parents[2]
MAX_LENGTH = 120


@dataclass(frozen=True, kw_only=True)
class Way:
    """How the steps are computed; the defaults are the ordinary way, with each step in one micro-batch."""

    tokens: int = 1_000_000
    """Of a micro-batch."""
    layout: Literal["tree", "flat", "plain"] = "tree"
    """plain: each response alone in an ordinary call of the model."""
    packed: bool = False
    """The rows of a micro-batch follow one another in a single one."""
    full: bool = False
    """All parameters are trained, begun from the merged adapters."""
    checkpointing: bool = False
    base: Literal["float32", "bfloat16", "rounded"] = "float32"
    """Of the frozen weights; rounded: bfloat16 values that are computed with in float32."""
    noise: float = 0.0
    """Every frozen weight is multiplied by 1 ± this, the sign drawn at random."""
    cached: bool = False
    """The reference is cached."""
    moved: bool = True
    """The policy has left the reference before the first step."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    max_grad_norm: float = 1.0
    steps: int | None = None
    """Take only the first ones."""
    device: str = "cpu"
    """On which the policy is."""
    resumed: bool = False
    """The last step is done by a new process, from the checkpoint of the one before."""


@dataclass(frozen=True)
class Outcome:
    """The result of the steps; sums over all ranks."""

    losses: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    norms: list[float] = field(default_factory=list[float])
    gradients: list[dict[str, Tensor]] = field(default_factory=list[dict[str, Tensor]])
    """Of each step, after clipping; parameter → gradient."""
    weights: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    """Trained parameters after the last step."""
    rollouts: list[Batch] = field(default_factory=list[Batch])
    """Drawn by this rank while it trained."""
    rows: list[Any] = field(default_factory=list[Any])
    """All responses drawn, before training and in it, of all ranks."""
    candidates: Preferences | None = None


def run(case: Case, way: Way, *, drawn: Outcome | None = None) -> Outcome:
    """Take the steps of a case; with ``drawn`` on the responses that it drew."""
    method = case.method
    if way.cached:
        method = replace(method, reference="cached")  # pyright: ignore[reportCallIssue]
    outcome = Outcome(candidates=_candidates(case, method, way) if drawn is None else drawn.candidates)
    if outcome.candidates is not None:
        outcome.rows.extend({**row, "place": None} for row in outcome.candidates)
    with _folder_of_all_ranks() as folder:
        processes = Processes()
        store = CheckpointStore(folder, Identity({}), keep=1, rank=processes.rank, barrier=processes.barrier)
        steps = Steps(case, method, way, outcome, store, drawn)
        for step in range(1, (way.steps or steps.number) + 1):
            if way.resumed and step == steps.number:
                steps.state.save(step - 1)
                steps = Steps(case, method, way, outcome, store, drawn)
                checkpoint, _ = store.latest()
                assert checkpoint is not None
                steps.state.restore(checkpoint)
            steps.take(step)
        outcome.weights.update({name: p.detach().clone() for name, p in steps.parameters.items()})
    return outcome


class Steps:
    """The parts of a run, as the trainer puts them together."""

    def __init__(
        self, case: Case, method: Method, way: Way, outcome: Outcome, store: CheckpointStore, drawn: Outcome | None
    ) -> None:
        self.policy, self.outcome, processes = make_policy(case, way), outcome, Processes()
        rows = outcome.candidates or data()
        examples = tokenize_for(method, rows, self.policy.tokenizer, MAX_LENGTH)
        assert not examples.report.rejected
        # Two steps and one with what is left over, which may be less than there are ranks; or two roll-outs.
        size = 5 if method.rollout else max(1, (len(examples) - 1) // 2)
        self.number = 2 * method.rollout.updates if method.rollout else 3
        config = TrainerConfig(
            batch_size=size, steps=self.number, max_length=MAX_LENGTH, learning_rate=0.03, schedule="constant",
            warmup=0, optimizer=way.optimizer, tokens_per_microbatch=way.tokens, max_grad_norm=way.max_grad_norm,
        )  # fmt: skip
        self.feed = Feed(self.policy, method, config, processes, train=examples, heldout=None, mix=None)
        if way.checkpointing:
            self.policy.recompute_activations(method.trains)
            assert any("forward" in vars(module) for module in self.policy.model.modules())
        self.parameters = self.policy.parameters(method.trains)
        optimizer = make_optimizer(self.parameters, config, self.feed.plan.learning_rate)
        optimizer.register_step_pre_hook(self._keep_gradient)
        self.stepper = Stepper(
            self.policy, method, processes, optimizer,
            tokens_per_microbatch=way.tokens, max_grad_norm=way.max_grad_norm,
        )  # fmt: skip
        self.source: Source = self.feed
        if method.rollout is not None:
            scorer = None if case.own_reward else WordValues()
            self.source = _Recorded(self.policy, method, self.feed.prompts, rows, scorer, processes, config)
            self.source.outcome, self.source.given = outcome, drawn
        schedule = make_schedule(optimizer, "constant", warmup=0, steps=self.number)
        self.state = TrainingState(
            stepper=self.stepper, schedule=schedule, source=self.source, store=store, stop=StopRequest(),
            steps=self.number,
        )  # fmt: skip
        self.feed.cache_columns(lambda: None)
        method.begin(self.policy)

    def take(self, step: int) -> None:
        batch = self.source.batch(step)
        if batch is None:  # the method leaves the rest of its roll-out unused
            self.outcome.losses.append({})
            return
        result = self.stepper.step(batch, self.feed.mixed(step))
        self.outcome.losses.append({name: x for name, x in result.metrics.items() if name.startswith("loss")})
        self.outcome.norms.append(result.grad_norm)
        self.source.updated(result.metrics)

    def _keep_gradient(self, *_: object) -> None:
        gradient = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in self.parameters.items()}
        self.outcome.gradients.append({name: g.detach().clone() for name, g in gradient.items()})


class _Recorded(Rollouts):
    """Keeps what is drawn, or takes what was drawn elsewhere."""

    outcome: Outcome
    given: Outcome | None

    def _sample(self, number: int, prompts: Batch) -> tuple[Batch, dict[str, Any]]:
        if self.given is None:
            batch, metrics = super()._sample(number, prompts)
        else:
            batch, metrics = self.given.rollouts[number], {"tokens/drawn": (0.0, 0)}
        self.outcome.rollouts.append(batch)
        mine = list(zip(batch.rows, batch.response_ids, strict=True))
        self.outcome.rows.append(sorted(item for part in self.processes.gather(mine) for item in part))
        return batch, metrics


def _candidates(case: Case, method: Method, way: Way) -> Preferences | None:
    """Candidates drawn by the policy that training begins from; None where the method learns from the data."""
    if method.candidates is None:
        return None
    policy = make_policy(case, way)
    with _folder_of_all_ranks() as folder:
        return draw(
            policy, data(), method.candidates, folder / "drawn.jsonl", scorer=WordValues(), max_length=MAX_LENGTH
        )


@contextmanager
def _folder_of_all_ranks() -> Generator[Path]:
    processes = Processes()
    with tempfile.TemporaryDirectory() as folder:
        yield processes.on_first(lambda: Path(folder))
        processes.barrier()


# Policies


def make_policy(case: Case, way: Way) -> Policy:
    """The same policy in every way: an adapter that was trained before, its frozen copy, and the other roles."""
    adapters = _adapters(case.model, case.roles, way.base, way.noise, way.moved)
    roles = _merged(adapters) if way.full else copy.deepcopy(adapters)
    layout = "flat" if way.layout == "plain" else way.layout
    policy = (_Plain if way.layout == "plain" else Policy)(roles, tokenizer(), layout=layout, packed=way.packed)
    modules = [*roles._modules.values()] if isinstance(roles, FullCopies) else [roles.peft_model]
    for module in (*modules, *roles.heads.values()):
        module.to(way.device)
    torch.manual_seed(2)
    return policy


@cache
def _adapters(model: str, roles: tuple[Role, ...], dtype: str, noise: float, moved: bool) -> SharedBase:
    """The roles of a policy, of which each way has a copy: PEFT takes longest to put adapters on a model."""
    base = network(model).eval()
    if dtype != "float32":
        base = base.to(torch.bfloat16)  # pyright: ignore[reportArgumentType]
    if dtype == "rounded":
        base = base.to(torch.float32)  # pyright: ignore[reportArgumentType]
    generator = torch.Generator().manual_seed(1)
    if noise:
        chance = torch.Generator().manual_seed(3)
        for weight in base.parameters():
            weight.data *= 1 + noise * (2 * torch.randint(0, 2, weight.shape, generator=chance) - 1)
    config: Any = Adapter(r=4).to_peft()
    config.fan_in_fan_out = model == TRANSPOSED
    peft_model: Any = get_peft_model(base, config, adapter_name="policy")

    def disturb(parameters: Mapping[str, Tensor]) -> None:
        for name, parameter in parameters.items():
            if "lora_B" in name:
                parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)

    disturb(dict(peft_model.named_parameters()))
    with tempfile.TemporaryDirectory() as folder:
        SharedBase(peft_model).save("policy", Path(folder))
        adapters = SharedBase(peft_model, start=Path(folder))
    torch.manual_seed(2)  # of the reward head
    Policy(adapters, tokenizer()).require(roles)
    if "value" in adapters.heads:
        torch.nn.init.normal_(adapters.heads["value"].weight, std=0.1)
    if moved:
        for role in adapters.names:
            if role != "reference":
                disturb(adapters.weights(role))
    return adapters


def _merged(adapters: SharedBase) -> FullCopies:
    """A full model per role, with the role's adapter merged."""
    modules: dict[Role, Any] = {}
    for role in adapters.names:
        whole: Any = copy.deepcopy(adapters.peft_model)
        whole.set_adapter(role)
        modules[role] = whole.merge_and_unload(adapter_names=[role]).requires_grad_(role != "reference")
    roles = FullCopies(modules["policy"])
    roles._modules = modules  # pyright: ignore[reportPrivateUsage]
    roles.heads = copy.deepcopy(adapters.heads)
    return roles


class _Plain(Policy):
    """The oracle: each response alone behind its prompt, unpadded, in an ordinary call of the model."""

    def logprobs(self, batch: Batch, *, temperature: float = 1.0, entropy: bool = False) -> Logprobs:
        shape = batch.mask_PKT.shape
        logp_PKT, entropy_PKT = torch.zeros(shape), torch.zeros(shape)
        for p, k, prompt, ids in _sequences(batch):
            logits_LV = self.model(input_ids=torch.tensor([[*prompt, *ids]])).logits[0].float() / temperature
            logp_TV = logits_LV[len(prompt) - 1 : -1].log_softmax(-1)
            logp_PKT[p, k, : len(ids)] = logp_TV.gather(1, torch.tensor(ids)[:, None])[:, 0]
            entropy_PKT[p, k, : len(ids)] = -(logp_TV.exp() * logp_TV).sum(-1)
        return Logprobs(logp_PKT, entropy_PKT if entropy else None)

    def scalars(self, batch: Batch) -> Tensor:
        out_PK = torch.zeros(batch.P, batch.K)
        for p, k, prompt, ids in _sequences(batch):
            out_PK[p, k] = self._head_of(prompt, ids)[-1]
        return out_PK

    def values(self, batch: Batch) -> Tensor:
        out_PKT = torch.zeros(batch.mask_PKT.shape)
        for p, k, prompt, ids in _sequences(batch):
            out_PKT[p, k, : len(ids)] = self._head_of(prompt, ids)[len(prompt) - 1 : -1]
        return out_PKT

    def _head_of(self, prompt: list[int], ids: list[int]) -> Tensor:
        head = self.roles.heads[self.role]
        hidden = self.model(input_ids=torch.tensor([[*prompt, *ids]]), output_hidden_states=True).hidden_states[-1]
        return (hidden[0].float() @ head.weight[0] - head.mean) / head.std


def _sequences(batch: Batch) -> list[tuple[int, int, list[int], list[int]]]:
    return [
        (p, k, list(prompt), list(ids))
        for p, (prompt, responses) in enumerate(zip(batch.prompt_ids, batch.response_ids, strict=True))
        for k, ids in enumerate(responses)
    ]
