"""Our side of the benchmarks: the policy and the optimiser step."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from align.method.base import Method
    from align.model.policy import Policy
    from align.training.step import Stepper

LEARNING_RATE, MAX_GRAD_NORM = 1e-6, 1.0  # TRL's defaults, in both


def load_policy(folder: Path, options: argparse.Namespace, *, adapters: bool = True) -> Policy:
    """Load the model in the folder, with its roles as adapters on one base or as full copies."""
    from align.model.policy import Policy
    from align.settings.adapter import Adapter

    adapter = Adapter(r=options.rank) if adapters else None
    return Policy.load(str(folder), adapter=adapter, device="cpu", seed=options.seed)


def make_stepper(policy: Policy, method: Method, options: argparse.Namespace) -> Stepper:
    """Return the stepper that trains the method's roles, which the policy must have."""
    from align.settings.config import TrainerConfig
    from align.system.processes import Processes
    from align.training.optimizer import make_optimizer
    from align.training.step import Stepper

    return Stepper(
        policy,
        method,
        Processes(),
        make_optimizer(policy.parameters(method.trains), TrainerConfig(), LEARNING_RATE),
        tokens_per_microbatch=options.tokens_per_microbatch,
        max_grad_norm=MAX_GRAD_NORM,
    )
