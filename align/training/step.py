"""One optimiser step: the same update whatever the size of micro-batches and the number of ranks."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from align.errors import SMALLER, first_line, is_out_of_memory
from align.model.devices import brought
from align.model.sharding import is_shared, whole_tensor
from align.system.processes import add_metrics, weighted_means

if TYPE_CHECKING:
    from align.method.base import Method, Metrics
    from align.model.batch import Batch
    from align.model.policy import Policy
    from align.system.processes import Processes


class TrainingError(RuntimeError):
    """Training cannot go on; the parameters are those of the last finished step."""


class BrokenUpdateError(TrainingError):
    """An update failed half-way: the parameters are those of no step, and must not be saved."""


@dataclass(frozen=True)
class StepResult:
    """Metrics of one optimiser step."""

    metrics: Mapping[str, float]
    grad_norm: float
    """Norm of the gradient before clipping."""
    tokens: int
    """Response and prompt tokens of all ranks, padding not counted."""

    def logged(self, seconds: float) -> dict[str, float]:
        """All that is logged of a step that took so long."""
        tokens = float(self.tokens)
        own = {"grad_norm": self.grad_norm, "tokens": tokens, "tokens_per_second": tokens / seconds}
        return {**self.metrics, **own, "seconds": seconds}


@dataclass
class _Share:
    """The outcome of one rank's part of a step, as all ranks need it."""

    tokens: int
    metrics: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    bad: list[int] = field(default_factory=list[int])
    """Rows whose loss is not finite."""
    unreached: set[int] = field(default_factory=set[int])
    """Numbers of the parameters that have no gradient."""


class Stepper:
    """Turns batches into updates of the trained roles."""

    def __init__(
        self,
        policy: Policy,
        method: Method,
        processes: Processes,
        optimizer: torch.optim.Optimizer,
        *,
        tokens_per_microbatch: int,
        max_grad_norm: float,
    ) -> None:
        self.policy = policy
        self.method = method
        self.processes = processes
        self.optimizer = optimizer
        self.tokens_per_microbatch = tokens_per_microbatch
        self.max_grad_norm = max_grad_norm
        parameters = policy.parameters(method.trains).values()
        self._whole = [parameter for parameter in parameters if not is_shared(parameter)]
        self._parts = [parameter for parameter in parameters if is_shared(parameter)]

    def step(self, batch: Batch, mixed: Batch | None = None) -> StepResult:
        """Accumulate the gradient of the step's loss over micro-batches and ranks, clip it, and update.

        ``batch`` is this rank's share of the step (it may be empty). All ranks call this together. ``mixed`` are
        demonstrations; γ times the mean negative log-probability of their tokens is added (``method.mixing``).

        Raises:
            TrainingError: Loss or gradient is not finite, or memory ran out; no parameter has changed.
        """
        micro_batches, weight, mixed_tokens = self._prepare_together(batch, mixed)
        if weight <= 0:
            raise TrainingError(
                f"the weights of rows {_shown(self._all_rows(batch))} sum to {weight}; nothing to learn from."
            )

        def differentiate() -> _Share:
            share = _Share(tokens=sum(map(len, batch.prompt_ids)) + batch.tokens)
            with self._memory_guard():
                rows, passes = self._differentiate(micro_batches, weight)
                mixed_in = self._mix_in(mixed, mixed_tokens) if mixed is not None else []
                # Looked at after the last pass: before, the processor would wait for the accelerator each time.
                passes, mixed_in = brought((passes, mixed_in))
            for metrics in (*(metrics for _, metrics in passes), *mixed_in):
                add_metrics(share.metrics, metrics)
            finite = [math.isfinite(loss) for loss, _ in passes]
            share.bad = [row for part, good in zip(rows, finite, strict=True) if not good for row in part]
            share.unreached = {number for number, parameter in enumerate(self._whole) if parameter.grad is None}
            return share

        try:
            shares = self.processes.together(differentiate)
        except Exception:
            self.optimizer.zero_grad(set_to_none=True)
            raise
        grad_norm = self._reduce_gradients(set.intersection(*(share.unreached for share in shares)))
        self._stop_unless_finite(grad_norm, sorted({row for share in shares for row in share.bad}), batch)
        self._update()
        self.optimizer.zero_grad(set_to_none=True)
        metrics = weighted_means(share.metrics for share in shares)
        return StepResult(metrics, grad_norm, sum(share.tokens for share in shares))

    def _differentiate(
        self, micro_batches: Sequence[Batch], weight: float
    ) -> tuple[list[Sequence[int]], list[tuple[torch.Tensor, Metrics]]]:
        """Add the gradients of the loss; returns the rows of each pass, and its loss and metrics."""
        rows: list[Sequence[int]] = []
        passes: list[tuple[torch.Tensor, Metrics]] = []
        for role in self.method.trains:
            with self.policy.use(role), self.policy.dropout(self.method.dropout):
                for part in micro_batches:
                    with self.processes.autocast(self.policy.device):
                        loss = self.method.loss(self.policy, part)
                    self.policy.backward(loss.sums[role] / weight)
                    rows.append(part.rows)
                    passes.append((loss.sums[role].detach(), loss.metrics))
        return rows, passes

    def _mix_in(self, mixed: Batch, tokens: float) -> list[Metrics]:
        """Add the gradients of the loss on demonstrations; returns the metrics of each pass."""
        metrics: list[Metrics] = []
        with self.policy.use("policy"):
            for part in self.policy.micro_batches(mixed, self.tokens_per_microbatch) if mixed.P else ():
                with self.processes.autocast(self.policy.device):
                    loss = -self.policy.logprobs(part).logp_PKT.sum()
                self.policy.backward(self.method.mixing * loss / tokens)
                metrics.append({"loss/mixed": (loss.detach(), part.tokens)})
        return metrics

    @torch.no_grad()
    def measure(self, batch: Batch) -> dict[str, tuple[float, float]]:
        """The method's metrics on this rank's share of a step, without an update: sums and weights by name.

        All ranks call this together. A step whose rows weigh nothing has none.
        """
        collected: dict[str, tuple[float, float]] = {}
        parts, weight, _ = self._prepare_together(batch)
        if weight <= 0:
            return collected

        def ask() -> None:
            metrics: list[Metrics] = []
            with self._memory_guard(), self.processes.autocast(self.policy.device):
                for role in self.method.trains:
                    with self.policy.use(role):
                        metrics.extend(self.method.loss(self.policy, part).metrics for part in parts)
            for part in brought(metrics):
                add_metrics(collected, part)

        self.processes.together(ask)
        return collected

    def _prepare_together(self, batch: Batch, mixed: Batch | None = None) -> tuple[list[Batch], float, int]:
        """Prepare this rank's micro-batches of a step, and add what depends on those of all ranks.

        Returned with the weight of the step, and the tokens mixed in, over all ranks. Where the weight is nothing they
        are not complete.
        """
        parts: list[Batch] = []

        def prepare() -> tuple[float, int]:
            with self._memory_guard():
                parts.extend(self._prepare(batch))
            return sum(self.method.weight(part) for part in parts), mixed.tokens if mixed is not None else 0

        weights, tokens = zip(*self.processes.together(prepare), strict=True)
        weight, mixed_tokens = sum(weights), sum(tokens)
        if weight <= 0:
            return parts, weight, mixed_tokens
        with self._memory_guard(), torch.no_grad(), self.processes.autocast(self.policy.device):
            prepared = self.method.prepare_step(self.policy, parts, self.processes.together)
        return list(prepared), weight, mixed_tokens

    def _prepare(self, batch: Batch) -> list[Batch]:
        if not batch.P:
            return []
        parts = self.policy.micro_batches(batch, self.tokens_per_microbatch)
        with torch.no_grad(), self.processes.autocast(self.policy.device):
            return [self.method.prepare(self.policy, part) for part in parts]

    def _reduce_gradients(self, unreached: set[int]) -> float:
        """Sum the gradients of all ranks; the weights already make the sum the step's mean. Returns the norm.

        Those of tensors that are shared out are summed already (:mod:`align.model.sharding`). What no rank's loss
        reaches keeps none, as on one process: of zeros the optimiser would decay the weights.
        """
        if self.processes.world_size > 1:
            gradients: list[torch.Tensor] = []
            for number, parameter in enumerate(self._whole):
                if number in unreached:
                    continue
                if parameter.grad is None:  # no prompt of this rank asks it, but all ranks sum the same tensors
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
            self.processes.sum_in_place(gradients)
        norm = get_total_norm([parameter.grad for parameter in self._whole if parameter.grad is not None])
        if self._parts:
            of_parts = whole_tensor(
                get_total_norm([parameter.grad for parameter in self._parts if parameter.grad is not None])
            )
            norm = torch.linalg.vector_norm(torch.stack([norm, of_parts]))
        for parameters in filter(None, (self._whole, self._parts)):
            clip_grads_with_norm_(parameters, self.max_grad_norm, norm)
        return norm.item()

    def _stop_unless_finite(self, grad_norm: float, bad: list[int], batch: Batch) -> None:
        if math.isfinite(grad_norm) and not bad:
            return
        self.optimizer.zero_grad(set_to_none=True)
        rows = bad or self._all_rows(batch)
        what = "loss" if bad else "gradient"
        raise TrainingError(
            f"the {what} is not finite; no parameter was changed. Rows of the training data in question: "
            f"{_shown(rows)}. Lower trainer.learning_rate, or use trainer.precision=float32 if it is bfloat16."
        )

    def _update(self) -> None:
        try:
            self.optimizer.step()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise BrokenUpdateError(
                f"out of memory in the middle of an update ({first_line(error)}); {SMALLER}. Continue with "
                "if_exists=resume from the last checkpoint."
            ) from error

    def _all_rows(self, batch: Batch) -> list[int]:
        return sorted(row for part in self.processes.gather(list(batch.rows)) for row in part)

    @contextmanager
    def _memory_guard(self) -> Generator[None]:
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, TrainingError) or not is_out_of_memory(error):
                raise
            self.optimizer.zero_grad(set_to_none=True)
            raise TrainingError(
                f"out of memory with trainer.tokens_per_microbatch={self.tokens_per_microbatch}; lower it "
                "(the result stays the same), or trainer.max_length, or set trainer.gradient_checkpointing=true."
            ) from error


def _shown(rows: Sequence[int]) -> str:
    shown = ", ".join(map(str, rows[:8]))
    return f"{shown}, … ({len(rows)} in all)" if len(rows) > 8 else shown
