"""Sources of batches: each optimiser step asks its run's source for one.

For a method that learns from the data the source is the :class:`Feed` itself, which deals examples to steps and ranks.
For an on-line method the feed deals prompts, and :class:`align.training.rollout.Rollouts` draws the batches.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from align.data import Preferences, TokenizedPreferences
from align.data.examples import require_rows, tokenize
from align.errors import UserError, require_kind
from align.method.base import Method
from align.model.batch import Batch
from align.system.randomness import epoch_order
from align.training.plan import Plan

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from align.model.policy import Policy
    from align.settings.config import TrainerConfig
    from align.system.processes import Processes

__all__ = ["Batches", "Feed", "Source", "tokenize_for"]

_CHUNK = 256  # examples at a time


class Source(ABC):
    """Gives each optimiser step its batch. Steps are counted from 1; every rank calls every method."""

    metrics: Mapping[str, float] = {}
    """Metrics of the drawing of the last batch; empty where nothing was drawn for it."""

    @abstractmethod
    def batch(self, step: int) -> Batch | None:
        """This rank's share of a step, which may have no prompts; None: the step is left out."""

    def updated(self, metrics: Mapping[str, float]) -> None:
        """Take note of the metrics of the update with the batch given last."""
        del metrics

    def save(self, folder: Path) -> None:
        """Write what the next batches depend on, beside the number of the step, into a new folder."""
        del folder

    def load(self, folders: Sequence[Path], *, deal: bool) -> None:
        """Go on from what :meth:`save` wrote on this rank, or, to ``deal`` it anew, on all ranks of another number."""
        del folders, deal


class Feed(Source):
    """Training, held-out and mixed-in data of one run, tokenised and dealt to steps and ranks."""

    def __init__(
        self,
        policy: Policy,
        method: Method,
        config: TrainerConfig,
        processes: Processes,
        *,
        train: Preferences | TokenizedPreferences,
        heldout: Preferences | TokenizedPreferences | None,
        mix: Preferences | None,
    ) -> None:
        """
        Args:
            policy: Gives the tokenizer; the number of its positions bounds ``max_length``.
            method: Names the unit of the examples; those of an on-line method are prompts.
            config: Gives ``max_length``, ``seed``, and what :class:`align.training.plan.Plan` needs.
            processes: Share the examples of a step.
            train: See :meth:`align.training.trainer.Trainer.fit`, as for the following two.
            heldout: Not read for an on-line method, whose metrics are those of its own samples.
            mix: Read only for a method with ``mixing``.

        Raises:
            UserError: ``max_length`` does not fit the model, tokenised examples do not fit the method, or none is left.
        """
        require_kind(Method, "give an object of the method's class", method=method)
        require_rows(train=train, heldout=heldout, mix=mix)
        self._policy, self._method, self._config, self._processes = policy, method, config, processes
        limit = policy.max_positions
        if limit is not None and config.max_length > limit:
            raise UserError(
                f"trainer.max_length={config.max_length} is beyond the {limit} positions of the model; set "
                f"trainer.max_length={limit} or less."
            )
        self.train = Batches(self._examples(train), processes)
        self._reports = [self.train.data.report]
        self.heldout: Batches | None = None
        if heldout is not None and method.rollout is None:
            examples = self._examples(heldout, heldout=True)
            self._reports.append(examples.report)
            self.heldout = Batches(examples, processes) if len(examples) else None
        if not len(self.train):
            raise UserError("no row of the training data is left to learn from; see the counts of rejected rows.")
        self._mix: Batches | None = None
        if mix is not None and not method.mixing:
            raise UserError(f"mix: {type(method).__name__} as it is set mixes no demonstrations in; leave mix out.")
        if method.mixing:
            rows = mix or self.train.data.preferences
            with processes.first_goes_first():
                examples = tokenize(rows, policy.tokenizer, max_length=config.max_length, unit="demonstration")
            self._mix = Batches(examples, processes)
        self.plan = Plan.of(config, method, examples=len(self.train), adapters=policy.uses_adapters)
        if method.rollout is not None and self.plan.batch_size < processes.world_size:
            raise UserError(
                f"trainer.batch_size={self.plan.batch_size} prompts of a roll-out cannot be shared out to "
                f"{processes.world_size} processes; raise it."
            )

    def batch(self, step: int) -> Batch:
        """This rank's share of a step."""
        return self.train.share(self._turn(step - 1))

    def prompts(self, turn: int) -> tuple[Batch, list[int]]:
        """This rank's share of a turn, counted from 0, and the rows of the data that all ranks share."""
        chosen = self._turn(turn)
        return self.train.share(chosen), [self.train.data[i].index for i in chosen]

    def mixed(self, step: int) -> Batch | None:
        """Demonstrations to mix into a step, as many as it has prompts."""
        if self._mix is None:
            return None
        size = min(max(1, self.plan.batch_size // self.plan.minibatches), len(self._mix))
        return self._mix.share(self._mix.turn(step - 1, size, len(self._mix) // size, self._config.seed + 2))

    def notes(self) -> list[str]:
        """Sentences on the rows that were rejected or cut, and what the method doubts."""
        lost = [report.summary() for report in self._reports if report.lost or report.noted]
        return [*lost, *(f"Warning: {doubt}" for doubt in self._method.doubts(self.train.data, self.plan.steps))]

    def cache_columns(self, between: Callable[[], None]) -> None:
        """Compute the method's cached columns, by the policy as it is now; ``between`` may raise to stop."""
        names = self._method.cached_columns(self.plan.passes)
        for batches in (self.train, self.heldout) if names else ():
            if batches is not None:
                batches.cache_columns(names, self._method, self._policy, self._config.tokens_per_microbatch, between)

    def _turn(self, number: int) -> list[int]:
        return self.train.turn(number, self.plan.batch_size, self.plan.turns_per_epoch, self._config.seed)

    def _examples(self, data: Preferences | TokenizedPreferences, *, heldout: bool = False) -> TokenizedPreferences:
        method, config = self._method, self._config
        if not isinstance(data, TokenizedPreferences):
            with self._processes.first_goes_first():
                return tokenize_for(method, data, self._policy.tokenizer, config.max_length, heldout=heldout)
        if data.unit != method.unit:
            raise UserError(
                f"{type(method).__name__} learns from a {method.unit}, but the data was tokenised as a {data.unit}; "
                "give Trainer.fit the Preferences instead."
            )
        longest = _longest(method, config.max_length)
        if method.rollout is not None and len(data) and data.lengths.max() > longest:
            raise UserError(
                f"the longest tokenised prompt has {data.lengths.max()} tokens, where trainer.max_length="
                f"{config.max_length} leaves room for {longest} beside an answer; give Trainer.fit the Preferences "
                "instead."
            )
        return data


class Batches:
    """One data set as one process sees it."""

    def __init__(self, data: TokenizedPreferences, processes: Processes) -> None:
        self.data, self._processes = data, processes
        self._cached: Mapping[str, torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self.data)

    def turn(self, number: int, size: int, per_epoch: int, seed: int) -> list[int]:
        """The examples of all ranks whose turn it is, counted from 0: ``per_epoch`` turns of ``size`` are a pass."""
        epoch, position = divmod(number, per_epoch)
        order = epoch_order(len(self.data), seed=seed, epoch=epoch)
        return order[position * size : (position + 1) * size]

    def share(self, chosen: Sequence[int]) -> Batch:
        """This rank's part of these examples: dealt by length, so that ranks have equal work."""
        by_length = sorted(chosen, key=lambda i: (-int(self.data.lengths[i]), i))
        return self._load(self._processes.share(by_length))

    def steps(self, size: int) -> Iterator[Batch]:
        """This rank's share of all examples in steps of at most ``size``, which differ by one example at most.

        The steps are the same for any number of ranks and any run, and mix what lies together in the data.
        """
        order = epoch_order(len(self.data), seed=0, epoch=0)
        number = math.ceil(len(order) / size)
        for first in range(number):
            yield self.share(order[first::number])

    @torch.no_grad()
    def cache_columns(
        self, names: Sequence[str], method: Method, policy: Policy, tokens: int, between: Callable[[], None]
    ) -> None:
        """Compute these columns of all examples in micro-batches of at most ``tokens`` tokens."""
        processes = self._processes
        places: list[int] = []
        columns: dict[str, list[torch.Tensor]] = {name: [] for name in names}
        mine = processes.share(range(len(self.data)))
        for start in tqdm(range(0, len(mine), _CHUNK), disable=not processes.is_first, desc="reference"):
            between()
            chunk = mine[start : start + _CHUNK]
            # `rows` names rows of the dataset; here the place among the tokenised examples is needed.
            part = dataclasses.replace(self._load(chunk), rows=tuple(chunk))
            for micro in policy.micro_batches(part, tokens):
                with processes.autocast(policy.device):
                    done = method.prepare(policy, micro)
                places.extend(micro.rows)
                for name in names:
                    columns[name].append(done[name].cpu())
        found = [part for part in processes.gather((places, _joined(columns))) if part[0]]
        order = torch.tensor([place for part, _ in found for place in part]).argsort()
        self._cached = {name: torch.cat([table[name] for _, table in found])[order] for name in names}

    def _load(self, indices: Sequence[int]) -> Batch:
        """These examples with their cached columns."""
        batch = Batch.from_examples(self.data[i] for i in indices)
        return batch.with_columns(**{name: table[list(indices)] for name, table in self._cached.items()})


def tokenize_for(
    method: Method,
    data: Preferences,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    *,
    heldout: bool = False,
) -> TokenizedPreferences:
    """Tokenise data as the method learns from it: its rows, its unit, each distinct prompt of an on-line method once.

    Args:
        method: That will train.
        data: Training or held-out data.
        tokenizer: Of the policy.
        max_length: Tokens of prompt and response together (``trainer.max_length``).
        heldout: The limit on rejected rows guards the training data; held-out rows that do not fit are only counted,
            and prompts alone are there to be answered.

    Raises:
        UserError: An on-line method's longest response leaves no room for a prompt, or too many rows are rejected.
    """
    longest, unit = _longest(method, max_length), method.unit
    rows = _answered(data) if heldout and unit != "prompt" else data
    examples = tokenize(
        method.learns_from(rows),
        tokenizer,
        max_length=longest,
        unit=unit,
        max_rejected=1.0 if heldout else None,
        may_be_empty=heldout,
    )
    return examples.distinct_prompts() if unit == "prompt" else examples


def _answered(data: Preferences) -> Preferences:
    """Return the rows that have a response, chosen or rejected."""
    sides, has = ("chosen", "rejected"), list[bool]()
    for table in data.tables(sides):
        has += map(any, zip(*(table[side].is_valid().to_pylist() for side in sides), strict=True))
    return data if all(has) else data.select(row for row, is_answered in enumerate(has) if is_answered)


def _joined(columns: Mapping[str, Sequence[torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.cat(list(parts)) for name, parts in columns.items() if parts}


def _longest(method: Method, max_length: int) -> int:
    """Tokens of the longest example: a prompt that is answered in training must leave room for the response."""
    if method.rollout is None:
        return max_length
    response = method.rollout.sampling.max_new_tokens
    if max_length - response < 3:
        raise UserError(
            f"trainer.max_length={max_length} leaves no room for a prompt beside an answer of {response} tokens; raise "
            "it or lower method.max_new_tokens."
        )
    return max_length - response
