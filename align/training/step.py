"""One optimiser step: micro-batches in, one update out, the same whatever their size and the number of ranks."""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from accelerate.utils import gather_object
from torch import nn

from align.method.online import OnlineMethod

if TYPE_CHECKING:
    from accelerate import Accelerator

    from align.method.base import Method
    from align.model.batch import Batch
    from align.model.policy import Policy

_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory", re.IGNORECASE)


class TrainingError(RuntimeError):
    """Training cannot go on; the parameters are those of the last finished step."""


@dataclass(frozen=True)
class StepResult:
    """What a step did."""

    metrics: Mapping[str, float]
    grad_norm: float
    """Norm of the gradient before clipping."""
    tokens: int
    """Response and prompt tokens of all ranks, padding not counted."""


class Stepper:
    """Turns batches into updates of the trained roles."""

    def __init__(
        self,
        policy: Policy,
        method: Method,
        accelerator: Accelerator,
        optimizer: torch.optim.Optimizer,
        *,
        tokens_per_microbatch: int,
        max_grad_norm: float,
        precision: str,
    ) -> None:
        self.policy = policy
        self.method = method
        self.accelerator = accelerator
        self.optimizer = optimizer
        self.tokens_per_microbatch = tokens_per_microbatch
        self.max_grad_norm = max_grad_norm
        self._bfloat16 = precision == "bfloat16"
        self._parameters = policy.parameters(method.trains)

    def step(self, batch: Batch, mixed: Batch | None = None) -> StepResult:
        """Accumulate the gradient of the step's loss over micro-batches and ranks, clip it, and update.

        ``batch`` is this rank's share of the step (it may be empty). All ranks call this together. ``mixed`` are
        demonstrations; γ times the mean negative log-probability of their tokens is added (``method.mixing``).

        Raises:
            TrainingError: Loss or gradient is not finite, or memory ran out; no parameter has changed.
        """
        with self._memory_guard():
            micro_batches = self._prepare(batch)
            weight = self._sum(sum(self.method.weight(part) for part in micro_batches))
            if weight <= 0:
                raise TrainingError(
                    f"the weights of rows {_shown(self._all_rows(batch))} sum to {weight}; nothing to learn from."
                )
            collected: dict[str, tuple[float, float]] = {}
            bad: list[int] = []
            for role in self.method.trains:
                with self.policy.use(role):
                    for part in micro_batches:
                        with self.autocast():
                            loss = self.method.loss(self.policy, part)
                        if not bool(torch.isfinite(loss.sums[role])):
                            bad.extend(part.rows)
                        (loss.sums[role] / weight).backward()
                        collect(collected, loss.metrics)
            if mixed is not None:
                self._mix_in(mixed, collected)
        grad_norm = self._reduce_gradients()
        self._stop_unless_finite(grad_norm, bad, batch)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        tokens = sum(map(len, batch.prompt_ids)) + batch.tokens
        return StepResult(self.reduce_metrics(collected), grad_norm, int(self._sum(tokens)))

    def _mix_in(self, mixed: Batch, collected: dict[str, tuple[float, float]]) -> None:
        assert isinstance(self.method, OnlineMethod)
        tokens = self._sum(mixed.tokens)
        with self.policy.use("policy"):
            for part in mixed.micro_batches(self.tokens_per_microbatch, self.policy.layout) if mixed.P else ():
                with self.autocast():
                    loss = -self.policy.logprobs(part).logp_PKT.sum()
                (self.method.mixing * loss / tokens).backward()
                collect(collected, {"loss/mixed": (loss.detach(), part.tokens)})

    @torch.no_grad()
    def measure(self, batch: Batch) -> dict[str, tuple[float, float]]:
        """The method's metrics on this rank's batch without learning; sums and weights for :meth:`reduce_metrics`."""
        collected: dict[str, tuple[float, float]] = {}
        with self._memory_guard(), self.autocast():
            for part in self._prepare(batch):
                for role in self.method.trains:
                    with self.policy.use(role):
                        collect(collected, self.method.loss(self.policy, part).metrics)
        return collected

    def reduce_metrics(self, collected: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        """Σsum / Σweight of every metric over all ranks."""
        totals: dict[str, tuple[float, float]] = {}
        for part in self._gather(dict(collected)):
            collect(totals, part)
        return {name: value / weight if weight else math.nan for name, (value, weight) in totals.items()}

    def autocast(self) -> Any:
        """Matrix products in bfloat16 where that was asked for."""
        return torch.autocast(self.policy.device.type, dtype=torch.bfloat16, enabled=self._bfloat16)

    def _prepare(self, batch: Batch) -> list[Batch]:
        if not batch.P:
            return []
        parts = batch.micro_batches(self.tokens_per_microbatch, self.policy.layout)
        with torch.no_grad(), self.autocast():
            return [self.method.prepare(self.policy, part) for part in parts]

    def _reduce_gradients(self) -> float:
        """Sum the gradients of all ranks; the weights already make the sum the step's mean. Returns the norm."""
        if self.accelerator.num_processes > 1:
            pending: list[Any] = []
            for parameter in self._parameters.values():
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                pending.append(dist.all_reduce(parameter.grad, async_op=True))
            for work in pending:
                work.wait()
        parameters = [parameter for parameter in self._parameters.values() if parameter.grad is not None]
        return nn.utils.clip_grad_norm_(parameters, self.max_grad_norm).item()

    def _stop_unless_finite(self, grad_norm: float, bad: list[int], batch: Batch) -> None:
        if math.isfinite(grad_norm) and not self._sum(len(bad)):
            return
        self.optimizer.zero_grad(set_to_none=True)
        rows = sorted({row for part in self._gather(bad) for row in part}) or self._all_rows(batch)
        what = "loss" if self._sum(len(bad)) else "gradient"
        raise TrainingError(
            f"the {what} is not finite; no parameter was changed. Rows of the training data in question: "
            f"{_shown(rows)}. Lower trainer.learning_rate, or use trainer.precision=float32 if it is bfloat16."
        )

    def _all_rows(self, batch: Batch) -> list[int]:
        return sorted(row for part in self._gather(list(batch.rows)) for row in part)

    def _gather(self, value: Any) -> list[Any]:
        return gather_object([value]) if self.accelerator.num_processes > 1 else [value]

    def _sum(self, value: float) -> float:
        return sum(self._gather(value))

    @contextmanager
    def _memory_guard(self) -> Generator[None]:
        try:
            yield
        except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU allocator raises it plain
            if isinstance(error, TrainingError) or not _MEMORY.search(str(error)):
                raise
            self.optimizer.zero_grad(set_to_none=True)
            raise TrainingError(
                f"out of memory with trainer.tokens_per_microbatch={self.tokens_per_microbatch}; lower it "
                "(the result stays the same), or trainer.max_length, or set trainer.gradient_checkpointing=true."
            ) from error


def collect(into: dict[str, tuple[float, float]], metrics: Mapping[str, tuple[Any, Any]]) -> None:
    """Add sums and weights of metrics, name by name."""
    for name, (value, weight) in metrics.items():
        before = into.get(name, (0.0, 0.0))
        into[name] = (before[0] + float(value), before[1] + float(weight))


def _shown(rows: Sequence[int]) -> str:
    shown = ", ".join(map(str, rows[:8]))
    return f"{shown}, … ({len(rows)} in all)" if len(rows) > 8 else shown
