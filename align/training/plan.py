"""The plan of a run, settled before its first step, and the identity that a resumed run must share with it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from align.errors import UserError
from align.model.fingerprint import weights_fingerprint

if TYPE_CHECKING:
    from align.data import TokenizedPreferences
    from align.method.base import Method
    from align.model.policy import Policy
    from align.settings.config import TrainerConfig

# Settings that may change when a run is resumed: they do not affect the result.
_FREE = ("keep_checkpoints", "log_steps", "save_steps", "samples", "eval_steps")


@dataclass(frozen=True)
class Plan:
    """The optimisation settings of a run after the defaults of its method filled the gaps."""

    learning_rate: float
    schedule: str
    warmup: float
    batch_size: int
    """Prompts of a step, or of a roll-out of an on-line method."""
    turns_per_epoch: int
    """Batches in the data."""
    steps_per_epoch: int
    """Optimiser steps of a pass over the data; each roll-out may serve several."""
    steps: int
    minibatches: int = 1
    """Parts that a roll-out is cut into."""

    @classmethod
    def of(cls, config: TrainerConfig, method: Method, *, examples: int, adapters: bool) -> Plan:
        """Resolve ``config`` against the method's :class:`align.method.base.Optimization` for this much data."""
        default = method.optimization
        batch_size = default.batch_size if config.batch_size is None else config.batch_size
        rollout = method.rollout
        if rollout is None:
            turns = math.ceil(examples / batch_size)
        else:  # whole batches only: the prompts left over come up in another epoch's order
            batch_size = min(batch_size, examples)
            turns = examples // batch_size
            if batch_size < rollout.minibatches:
                raise UserError(
                    f"trainer.batch_size={batch_size} prompts cannot be cut into {rollout.minibatches} minibatches; "
                    "raise it or lower method.minibatches."
                )
        per_epoch = turns * (1 if rollout is None else rollout.updates)
        epochs = default.epochs if config.epochs is None else config.epochs
        rate = default.learning_rate if adapters else default.full_learning_rate
        return cls(
            learning_rate=rate if config.learning_rate is None else config.learning_rate,
            schedule=config.schedule or default.schedule,
            warmup=default.warmup if config.warmup is None else config.warmup,
            batch_size=batch_size,
            turns_per_epoch=turns,
            steps_per_epoch=per_epoch,
            minibatches=1 if rollout is None else rollout.minibatches,
            steps=config.steps if config.steps is not None else max(1, round(epochs * per_epoch)),
        )


def method_settings(method: Method) -> dict[str, Any]:
    """Name and hyper-parameters of a method."""
    return {"name": type(method).__name__, **dataclasses.asdict(method)}  # pyright: ignore[reportArgumentType]


def describe(method: Method, config: TrainerConfig, policy: Policy) -> dict[str, Any]:
    """The content of ``config.yaml`` for a run that was not composed of configuration files."""
    return {
        "method": method_settings(method),
        "model": policy.model.config.name_or_path,
        "trainer": dataclasses.asdict(config),
    }


def identity(
    method: Method, config: TrainerConfig, plan: Plan, data: TokenizedPreferences, policy: Policy, world_size: int
) -> dict[str, Any]:
    """All that a resumed run must share with the run before; ``policy`` is as it was before the first step."""
    settings = {name: value for name, value in dataclasses.asdict(config).items() if name not in _FREE}
    return {
        "method": method_settings(method),
        "trainer": settings,
        "plan": dataclasses.asdict(plan),
        "data": data.fingerprint,
        "start": weights_fingerprint(policy),
        "world_size": world_size,
    }
