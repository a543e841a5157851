"""Roll-outs: the batches of an on-line method are responses that the policy draws while it is trained.

One roll-out is good for ``plan.updates`` optimiser steps::

    draw K responses to each prompt → score them → method.ask_roles → method.compute_advantages
    then plan.epochs passes over it, each in plan.minibatches parts drawn anew

What is drawn depends on the seed, the prompt and the number of the roll-out alone, and sums run over all ranks, so that
micro-batches and ranks change nothing. The roll-out in use is part of every checkpoint.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from align.errors import UserError
from align.model.batch import Batch, padded
from align.sampling.engine.engines import Engine, LocalEngine
from align.sampling.params import Response
from align.scoring.checked_scores import ScoreLog, deviations, record_scores, score_texts
from align.system.processes import add_metrics
from align.system.randomness import derived_seed, epoch_order
from align.system.signals import stop_if_alone
from align.training.feed import Feed, Source

if TYPE_CHECKING:
    from align.data import Preferences
    from align.method.base import Method, State
    from align.model.policy import Policy
    from align.scoring.scorer import Scorer
    from align.settings.config import TrainerConfig
    from align.system.processes import Processes


def make_source(
    feed: Feed,
    policy: Policy,
    method: Method,
    scorer: Scorer | None,
    processes: Processes,
    config: TrainerConfig,
    engine: Engine | None = None,
) -> Source:
    """Make the source of a run's batches: the data itself, or what the policy draws in answer to its prompts."""
    if method.rollout is None:
        return feed
    return Rollouts(policy, method, feed.prompts, feed.train.data.preferences, scorer, processes, config, engine)


class Rollouts(Source):
    """Draws and keeps the roll-out in use."""

    def __init__(
        self,
        policy: Policy,
        method: Method,
        prompts: Callable[[int], tuple[Batch, list[int]]],
        rows: Preferences,
        scorer: Scorer | None,
        processes: Processes,
        config: TrainerConfig,
        engine: Engine | None = None,
    ) -> None:
        """
        Args:
            policy: Is trained.
            method: An on-line one.
            prompts: Gives those of a roll-out, counted from 0: this rank's as a batch, and the rows of all ranks.
            rows: Texts and columns of the prompts for the scorer; the rows of batches are its indices.
            scorer: Gives the rewards; None: the policy's reward role.
            processes: Share the prompts of a roll-out.
            config: Gives ``seed`` and ``tokens_per_microbatch``.
            engine: Draws from the policy; None: the built-in loop.
        """
        if scorer is None and "reward" not in policy.roles.names:
            raise UserError(
                f"{type(method).__name__} needs rewards: train the reward role of this policy first, or give "
                "Trainer.fit a scorer."
            )
        assert method.rollout is not None
        self.policy, self.method, self.plan = policy, method, method.rollout
        self.engine = engine or LocalEngine(policy)
        self.engine.require(self.plan.sampling, logps=True)
        self.prompts, self.rows, self.scorer = prompts, rows, scorer
        self.processes, self.tokens_per_microbatch, self.seed = processes, config.tokens_per_microbatch, config.seed
        self.state: State = {}
        self.number = -1
        self.abandoned = False
        self._batch: Batch | None = None
        self._order: list[int] = []  # rows of the roll-out, of all ranks

    def batch(self, step: int) -> Batch | None:
        """This rank's part of a minibatch; None where the roll-out was left early."""
        number, place = divmod(step - 1, self.plan.updates)
        self.metrics = {}
        if number != self.number:
            self._draw(number)
        assert self._batch is not None
        if self.abandoned:
            return None
        epoch, part = divmod(place, self.plan.minibatches)
        order = epoch_order(len(self._order), seed=self.seed + 1, epoch=number * self.plan.epochs + epoch)
        chosen = {self._order[i] for i in order[part :: self.plan.minibatches]}
        return self._batch.select([p for p, row in enumerate(self._batch.rows) if row in chosen])

    def updated(self, metrics: Mapping[str, float]) -> None:
        """Leave the rest of the roll-out unused where the method says so."""
        self.abandoned = self.method.stops_early(metrics)

    # Drawing

    @torch.no_grad()
    def _draw(self, number: int) -> None:
        began = time.perf_counter()
        metrics: dict[str, tuple[float, float]] = {}
        drawn = _Drawn()
        self.engine.load()
        batch, order, taught = self._filled(number, metrics, drawn)
        experience = self.method.compute_advantages(batch, self.state, self.processes.sum_tensor)
        seconds = {"seconds/sampling": metrics["seconds/sampling"][0], "seconds/rollout": time.perf_counter() - began}
        metrics |= {name: (value * batch.P, batch.P) for name, value in seconds.items()}
        metrics["tokens/drawn"] = (metrics["tokens/drawn"][0], 1 / self.processes.world_size)
        found, drawn.differences = _sampler_difference(experience.batch)
        metrics |= {**drawn.log.metrics(), **found}
        everyone = self.processes.gather(drawn)
        self.metrics = {
            **self.processes.reduce_metrics({**metrics, **experience.metrics}),
            **deviations(rank.log.values for rank in everyone),
            "identical": _identical([each for rank in everyone for each in rank.responses]),
            **_largest(rank.differences for rank in everyone),
        }
        self.number, self.abandoned = number, not taught
        self._batch, self._order, self.state = experience.batch, order, experience.state

    def _filled(
        self, number: int, metrics: dict[str, tuple[float, float]], drawn: _Drawn
    ) -> tuple[Batch, list[int], bool]:
        """Return this rank's part of a roll-out, the rows of all ranks, and whether to learn from it.

        With ``plan.refills`` prompts that teach nothing are left out, and further ones drawn for in their place, until
        there are as many as usual or no refill is left. Where none teaches anything, those of the first draw are
        returned to be measured, and no update is made. Metrics of all that is drawn are added.
        """
        draws = 1 + self.plan.refills
        if draws == 1:
            prompts, order = self.prompts(number)
            return self._scored(number, prompts, metrics, drawn), order, True
        parts: list[Batch] = []
        rows: list[list[int]] = []
        kept: list[Batch] = []
        order = []
        for place in range(number * draws, (number + 1) * draws):
            prompts, wanted = self.prompts(place)
            prompts = prompts.select([p for p, row in enumerate(prompts.rows) if row not in order])
            part = self._scored(place, prompts, metrics, drawn)
            kept.append(part.select(torch.nonzero(self.method.teaches(part)).flatten().tolist()))
            order += [row for rank in self.processes.gather(list(kept[-1].rows)) for row in rank]
            parts.append(part)
            rows.append(wanted)
            if len(order) >= len(wanted):
                break
        metrics["teaches"] = (float(len(order)), float(sum(map(len, rows))))
        return (Batch.concatenate(kept), order, True) if order else (parts[0], rows[0], False)

    def _scored(self, number: int, prompts: Batch, metrics: dict[str, tuple[float, float]], drawn: _Drawn) -> Batch:
        """Draw and score responses to the prompts, and ask the method's roles about them."""
        began = time.perf_counter()
        sampled: list[tuple[Batch, dict[str, Any]]] = []
        self.processes.together(lambda: sampled.append(self._sample(number, prompts)))
        ((batch, found),) = sampled
        drawn.responses += [hash(tuple(ids)) for responses in batch.response_ids for ids in responses]
        add_metrics(metrics, {**found, "seconds/sampling": (time.perf_counter() - began, 0)})
        if self.scorer is not None:
            with record_scores(drawn.log):
                scores = self._score(batch, self.scorer)
            batch = batch.with_columns(score_PK=padded(scores, 0.0, dtype=torch.float32))
        with self.processes.autocast(self.policy.device):
            return self._asked(batch)

    def _sample(self, number: int, prompts: Batch) -> tuple[Batch, dict[str, Any]]:
        drawn = self.engine.generate(
            prompts.prompt_ids,
            self.plan.sampling,
            n=self.plan.responses,
            seed=derived_seed(self.seed, number),
            keys=prompts.rows,
            between=stop_if_alone,
        )
        batch = Batch(
            prompt_ids=prompts.prompt_ids,
            response_ids=tuple(tuple(response.ids for response in row) for row in drawn),
            rows=prompts.rows,
        )
        ended_PK = torch.tensor([[response.finished for response in row] for row in drawn], dtype=torch.bool)
        batch = batch.with_columns(
            ended_PK=ended_PK.reshape(batch.P, batch.K),
            sampler_logp_PKT=_padded_tokens(drawn, batch),
        )
        responses = float(batch.valid_PK.sum())
        metrics: dict[str, Any] = {
            "tokens/lengths": (batch.length_PK.sum(), responses),
            "tokens/drawn": (batch.length_PK.sum(), 0),
            "val/num_eos_tokens": (ended_PK.sum(), responses),
        }
        return batch, metrics

    def _score(self, batch: Batch, scorer: Scorer) -> list[list[float]]:
        texts = [[self.policy.decode(ids) for ids in responses] for responses in batch.response_ids]
        rows = [self.rows[row] for row in batch.rows]
        return self.processes.together(lambda: score_texts(scorer, rows, texts))[self.processes.rank]

    def _asked(self, batch: Batch) -> Batch:
        asked: list[Batch] = []
        self.processes.together(
            lambda: asked.append(
                self.policy.in_micro_batches(batch, self._ask_roles, tokens=self.tokens_per_microbatch)
            )
        )
        return asked[0]

    def _ask_roles(self, part: Batch) -> Batch:
        if self.scorer is None:
            with self.policy.use("reward"):
                part = part.with_columns(score_PK=self.policy.scalars(part))
        return self.method.ask_roles(self.policy, part)

    # Checkpoints

    def save(self, folder: Path) -> None:
        """Write this rank's roll-out and the method's state into ``folder``."""
        assert self._batch is not None
        folder.mkdir()
        save_file({name: c.contiguous() for name, c in self._batch.columns.items()}, folder / "columns.safetensors")
        content = {
            "number": self.number,
            "abandoned": self.abandoned,
            "state": dict(self.state),
            "order": self._order,
            "rows": self._batch.rows,
            "prompt_ids": self._batch.prompt_ids,
            "response_ids": self._batch.response_ids,
        }
        (folder / "rollout.json").write_text(json.dumps(content), encoding="utf-8")

    def load(self, folders: Sequence[Path], *, deal: bool) -> None:
        """Go on from what :meth:`save` wrote; see :meth:`align.training.feed.Source.load`."""
        contents = [json.loads((folder / "rollout.json").read_text(encoding="utf-8")) for folder in folders]
        parts = [
            Batch(
                prompt_ids=tuple(content["prompt_ids"]),
                response_ids=tuple(tuple(responses) for responses in content["response_ids"]),
                rows=tuple(content["rows"]),
                columns=load_file(folder / "columns.safetensors"),
            )
            for folder, content in zip(folders, contents, strict=True)
        ]
        content, batch = contents[0], Batch.concatenate(parts)  # the rest is the same on all ranks
        self._order, self.state = list(content["order"]), content["state"]
        self.number, self.abandoned = int(content["number"]), bool(content["abandoned"])
        mine = self.processes.share(self._order) if deal else batch.rows
        self._batch = batch.select([p for p, row in enumerate(batch.rows) if row in mine])


@dataclass
class _Drawn:
    """This rank's part of a roll-out as all ranks need it, for metrics that are no means."""

    log: ScoreLog = field(default_factory=ScoreLog)
    responses: list[int] = field(default_factory=list[int])
    """A hash of each."""
    differences: list[float] = field(default_factory=list[float])
    """The largest between the trainer's log-probabilities and the sampler's, if there is one."""


def _padded_tokens(drawn: Sequence[Sequence[Response]], batch: Batch) -> Tensor:
    out_PKT = torch.zeros(batch.P, batch.K, batch.T)
    for p, row in enumerate(drawn):
        for k, response in enumerate(row):
            out_PKT[p, k, : len(response.logps)] = torch.tensor(response.logps)
    return out_PKT


def _identical(responses: Sequence[int]) -> float:
    """Share of the responses that occur more than once."""
    return sum(count for count in Counter(responses).values() if count > 1) / len(responses)


def _sampler_difference(batch: Batch) -> tuple[dict[str, Any], list[float]]:
    """Mean difference between the trainer's log-probabilities and the sampler's, and the largest, if there is one."""
    if "old_logp_PKT" not in batch:
        return {}, []
    difference = (batch["old_logp_PKT"] - batch["sampler_logp_PKT"]).abs()[batch.mask_PKT]
    largest = [difference.max().item()] if len(difference) else []
    return {"sampling/logp_difference": (difference.sum(), len(difference))}, largest


def _largest(differences: Iterable[Sequence[float]]) -> dict[str, float]:
    """The largest difference on any rank."""
    found = [each for rank in differences for each in rank]
    return {"sampling/logp_difference_max": max(found)} if found else {}
