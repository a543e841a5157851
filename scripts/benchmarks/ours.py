"""This project's side of the benchmarks: the policy, the optimiser step, and what is asked of both sides alike."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.turns import Turn

if TYPE_CHECKING:
    from align.data import Example
    from align.method.base import Method
    from align.model.policy import Policy
    from align.training.step import Stepper

LEARNING_RATE, MAX_GRAD_NORM = 1e-6, 1.0  # of both sides


def load_policy(folder: Path, options: argparse.Namespace, *, adapters: bool = True, **settings: Any) -> Policy:
    """Load the model in the folder, with its roles as adapters on one base or as full copies."""
    from align.model.policy import Policy
    from align.settings.adapter import Adapter

    adapter = Adapter(r=options.rank) if adapters else None
    return Policy.load(str(folder), adapter=adapter, device="cpu", seed=options.seed, **settings)


def make_stepper(policy: Policy, method: Method, options: argparse.Namespace, *, precision: str = "float32") -> Stepper:
    """Return the stepper that trains the method's roles, which the policy must have."""
    from align.settings.config import TrainerConfig
    from align.system.processes import Processes
    from align.training.optimizer import make_optimizer
    from align.training.step import Stepper

    return Stepper(
        policy,
        method,
        Processes(precision),
        make_optimizer(policy.parameters(method.trains), TrainerConfig(), LEARNING_RATE),
        tokens_per_microbatch=options.tokens_per_microbatch,
        max_grad_norm=MAX_GRAD_NORM,
    )


def train(
    turn: Turn,
    options: argparse.Namespace,
    folder: Path,
    *,
    method: Method,
    steps: list[list[Example]],
    layout: str = "auto",
) -> None:
    """Train on the examples of each step; the time includes the layout of the batch in memory."""
    from align.model.batch import Batch

    policy = load_policy(folder, options, dtype=options.dtype, layout=layout)
    policy.require(method.roles)
    for role in method.trains:
        set_weights(policy.roles.parameters(role), options.seed)
    stepper = make_stepper(policy, method, options, precision=options.dtype)
    batches = [Batch.from_examples(examples) for examples in steps]
    began = time.perf_counter()
    if method.cached_columns(passes=1):
        batches = [_with_columns(stepper, batch) for batch in batches]
    prepared = time.perf_counter() - began
    count = TokenCount(policy.model)
    for batch in batches:
        turn.begin()
        result = stepper.step(batch)
        turn.end(
            loss=result.metrics["loss"],
            prepared_seconds=prepared / len(batches),
            tree=float(policy.layout == "tree"),
            **count.taken(),
        )


def _with_columns(stepper: Stepper, batch: Any) -> Any:
    """Add the columns that a run computes once for all of its data."""
    import torch

    policy, method = stepper.policy, stepper.method
    parts = policy.micro_batches(batch, stepper.tokens_per_microbatch)
    with torch.no_grad(), stepper.processes.autocast(policy.device):
        return type(batch).concatenate([method.prepare(policy, part) for part in parts])


def set_weights(parameters: Mapping[str, Any], seed: int) -> None:
    """Give a trained adapter and its head weights that depend on their names alone, so the same on both sides.

    They look trained: with a new adapter every correct or wrong loss of DPO is log 2.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in sorted(parameters):
            std = parameters[name].shape[1] ** -0.5 if ".lora_A." in name else 0.02
            parameters[name].normal_(std=std, generator=generator)


class TokenCount:
    """Tokens that go into a model, padding included, in passes with and without a gradient."""

    def __init__(self, model: Any) -> None:
        self._taken = {"padded_tokens": 0, "forward_tokens": 0}
        model.get_input_embeddings().register_forward_hook(self._count)

    def _count(self, module: Any, inputs: Any, output: Any) -> None:
        import torch

        del module, output
        self._taken["padded_tokens" if torch.is_grad_enabled() else "forward_tokens"] += inputs[0].numel()

    def taken(self) -> dict[str, float]:
        """Return the tokens since the last time."""
        taken = dict(self._taken)
        self._taken = dict.fromkeys(taken, 0)
        return taken
