"""The run that is examined: its settings, and its parts, each made when a check first asks for it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from typing_extensions import override

from align.data.encoding import Encoded, Encoder
from align.data.load_report import RowError
from align.data.schema import TOKENS
from align.errors import ScorerError, UserError
from align.model.batch import Batch
from align.model.skeleton import skeleton
from align.sampling.params import SamplingParams
from align.sampling.sampler import Sampler
from align.system.processes import Processes
from align.training.cluster import Cluster
from align.training.feed import Feed
from align.training.memory import Workload, estimate, readable
from align.training.plan import Plan
from align.training.rollout import make_source
from align.training.scale import advice
from align.training.step import Stepper, StepResult, TrainingError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from align.data import Preferences, TokenizedPreferences
    from align.data.schema import Example
    from align.method.base import Method
    from align.model.policy import Policy
    from align.model.skeleton import Skeleton
    from align.settings.config import RunConfig
    from align.training.memory import Memory

__all__ = ["Conversation", "Drawn", "NotReached", "Patient", "Trial"]

_ROWS = 64  # rows, spread over the data, that are looked at
_PROMPTS = 4  # that are answered, and learnt from in the trial
_NEW_TOKENS = 16
_OPERATIONS = 1e11  # of the trial, 6 for each parameter and token


class NotReached(Exception):
    """A part of the run cannot be made, which another check has said already."""


@dataclass(frozen=True)
class Conversation:
    """A prompt of the data and an answer to it, encoded anew."""

    answer: str
    asked: list[int]
    """The prompt as it is answered."""
    encoded: Encoded


@dataclass(frozen=True)
class Drawn:
    """Short answers of the policy to a few prompts, sampled at temperature 1."""

    batch: Batch
    sampler_logp: torch.Tensor
    """Log-probability of all their tokens in order, as they were drawn."""


@dataclass(frozen=True)
class Trial:
    """One step on a few prompts, of which no parameter was changed."""

    result: StepResult
    seconds: float
    """Of a step of the run with its part of a roll-out, in proportion to the number of prompts."""
    untouched: list[str]
    """Trained parameters that got no gradient."""
    trained: int


class Patient:
    """Settings and parts of a run.

    A part that cannot be made raises its `UserError` for the first check that asks, and `NotReached` for the others.
    """

    def __init__(self, config: RunConfig, method: Method, parts: Mapping[str, Callable[[], Any]]) -> None:
        """
        Args:
            config: Of the run.
            method: Of the run.
            parts: Make ``architecture``, ``data`` (training and held-out), ``tokenizer``, ``examples``, ``scores``
                (names of the scorers, each asked once), ``policy`` and, for the policy, ``reward`` (a scorer or None).
        """
        self.config, self.method = config, method
        self._make = {
            **parts,
            "skeleton": lambda: skeleton(config.model, config.adapter, self.architecture),
            "plan": lambda: Plan.of(
                config.trainer, method, examples=len(self.examples), adapters=config.adapter is not None
            ),
            "workload": lambda: Workload(
                method=method,
                architecture=self.architecture,
                whole=self.skeleton,
                examples=self.examples,
                plan=self.plan,
                tokenizer=self.tokenizer,
            ),
            "memory": lambda: estimate(config, self.part("workload")),
            "room": self._require_room,
            "policy": lambda: (self.part("room"), parts["policy"]())[1],
            "trial": self._try_step,
            "drawn": self._draw,
        }
        self._made: dict[str, Any] = {}

    def part(self, name: str) -> Any:
        """Return a part, made once."""
        if name not in self._made:
            try:
                self._made[name] = self._make[name]()
            except (UserError, ScorerError, TrainingError) as error:
                self._made[name] = NotReached(f"there is no {name}")
                raise error
        made = self._made[name]
        if isinstance(made, NotReached):
            raise made
        return made

    @property
    def architecture(self) -> PretrainedConfig:
        """The model's configuration."""
        return self.part("architecture")

    @property
    def skeleton(self) -> Skeleton:
        """The model without weights."""
        return self.part("skeleton")

    @property
    def train(self) -> Preferences:
        """The training data."""
        return self.part("data")[0]

    @property
    def heldout(self) -> Preferences | None:
        """Held-out data."""
        return self.part("data")[1]

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Of the model."""
        return self.part("tokenizer")

    @property
    def examples(self) -> TokenizedPreferences:
        """The training data as the method learns from it."""
        return self.part("examples")

    @property
    def plan(self) -> Plan:
        """Steps, batch size, learning rate."""
        return self.part("plan")

    @property
    def memory(self) -> Memory:
        """The estimate."""
        return self.part("memory")

    @property
    def policy(self) -> Policy:
        """The model with its weights, which are loaded only where there is room for them."""
        return self.part("policy")

    @property
    def trial(self) -> Trial:
        """One step without effect."""
        return self.part("trial")

    @property
    def drawn(self) -> Drawn:
        """Answers of the policy."""
        return self.part("drawn")

    @cached_property
    def encoder(self) -> Encoder:
        """The rules of the tokenizer and its chat template."""
        return Encoder.of(self.tokenizer)

    @cached_property
    def sample(self) -> list[Example]:
        """Some of the examples, spread over the data."""
        return [self.examples[i] for i in _spread(len(self.examples))]

    @cached_property
    def conversations(self) -> list[Conversation]:
        """Rows of the data with an answer of plain text, encoded anew; none where the data is token ids already."""
        found: list[Conversation] = []
        for i in _spread(len(self.train)):
            row = self.train[i]
            if row["prompt"][0]["role"] == TOKENS or row.get("tools"):
                continue
            answers = [side[0] for side in (row["chosen"], row["rejected"]) if side]
            plain = [one for one in answers if not one.get("tool_calls") and not one.get("thinking")]
            if not plain or not str(plain[0]["content"]).strip():
                continue
            try:
                rendered = self.encoder.render(self.tokenizer, row["prompt"], [plain[0]])
                (encoded,) = self.encoder.encode(self.tokenizer, [rendered])
                (asked,) = self.encoder.prompts(self.tokenizer, [row["prompt"]])
            except RowError:  # counted where the data is tokenised
                continue
            if encoded.prompt and encoded.responses[0]:
                found.append(Conversation(str(plain[0]["content"]), asked, encoded))
        return found

    def _require_room(self) -> str:
        peak, cluster = self.memory.peak, Cluster.own()
        advised = advice(self.config, self.part("workload"), cluster)
        if peak > cluster.room:
            largest = max({**self.memory.kept, **self.memory.passing}.items(), key=lambda item: item[1])
            raise UserError(
                f"the run needs about {readable(peak)}, most of it for {largest[0]}, and there are "
                f"{readable(cluster.room)}: {advised}"
            )
        return f"about {readable(peak)} of {readable(cluster.room)}; {advised}"

    @torch.no_grad()
    def _draw(self) -> Drawn:
        shortest = sorted(self.sample, key=lambda example: len(example.prompt_ids))[:_PROMPTS]
        prompts = [example.prompt_ids for example in shortest]
        sampler = Sampler(self.policy, SamplingParams(temperature=1.0, max_new_tokens=_NEW_TOKENS))
        responses = [row[0] for row in sampler.generate(prompts, seed=self.config.seed)]
        return Drawn(
            Batch(
                prompt_ids=tuple(prompts),
                response_ids=tuple((response.ids,) for response in responses),
                rows=tuple(range(len(prompts))),
            ),
            torch.tensor([logp for response in responses for logp in response.logps]),
        )

    def _affordable_prompts(self) -> int:
        """Prompts of the trial: as many as cost some seconds on a CPU, for a few say little about the time of many."""
        rollout = self.method.rollout
        drawn = 0 if rollout is None else rollout.responses * rollout.sampling.max_new_tokens
        tokens = float(self.examples.lengths.mean()) + drawn
        return max(_PROMPTS, int(_OPERATIONS / (6 * self.skeleton.size.total * tokens)))

    def _try_step(self) -> Trial:
        config, method, policy, examples = self.config, self.method, self.policy, self.examples
        size = min(len(examples), self.plan.batch_size, max(self.plan.minibatches, self._affordable_prompts()))
        few = dataclasses.replace(examples, rows=examples.rows[:size], lengths=examples.lengths[:size])
        trainer = dataclasses.replace(config.trainer, batch_size=size, seed=config.seed)
        processes = Processes(trainer.precision)
        feed = Feed(policy, method, trainer, processes, train=few, heldout=None, mix=None)
        policy.require(method.roles)
        source = make_source(feed, policy, method, self.part("reward"), processes, trainer)
        parameters = policy.parameters(method.trains)
        optimizer = _Watch(parameters)
        stepper = Stepper(
            policy,
            method,
            processes,
            optimizer,
            tokens_per_microbatch=trainer.tokens_per_microbatch,
            max_grad_norm=trainer.max_grad_norm,
        )
        method.begin(policy)
        feed.cache_columns(lambda: None)
        began = time.perf_counter()
        batch = source.batch(1)
        assert batch is not None
        drawn = time.perf_counter()
        result = stepper.step(batch, feed.mixed(1))
        rollout = method.rollout
        seconds = (time.perf_counter() - drawn) + (drawn - began) / (1 if rollout is None else rollout.updates)
        return Trial(result, seconds * self.plan.batch_size / size, optimizer.untouched, len(parameters))


class _Watch(torch.optim.Optimizer):
    """Looks at gradients instead of following them."""

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        super().__init__(list(parameters.values()), {})
        self._named = parameters
        self.untouched: list[str] = []

    @override
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        del closure
        self.untouched = [name for name, parameter in self._named.items() if parameter.grad is None]


def _spread(length: int) -> list[int]:
    return sorted({i * length // _ROWS for i in range(_ROWS)}) if length else []
