"""What a run will do, settled before the first step, and what makes it the same run when it is resumed."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from align.errors import UserError
from align.method.online import OnlineMethod
from align.model.fingerprint import weights_fingerprint

if TYPE_CHECKING:
    from align.data import TokenizedPreferences
    from align.method.base import Method
    from align.model.policy import Policy
    from align.settings.config import TrainerConfig

# Settings that may change when a run is resumed: they do not touch the result.
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
    """Optimiser steps of a pass; each roll-out is good for several."""
    steps: int
    minibatches: int = 1
    """Parts a roll-out is cut into."""

    @classmethod
    def of(cls, config: TrainerConfig, method: Method, *, examples: int, adapters: bool) -> Plan:
        """Resolve ``config`` against the method's :class:`align.method.base.Optimization` for this much data."""
        default = method.optimization
        batch_size = default.batch_size if config.batch_size is None else config.batch_size
        rollout = method.rollout if isinstance(method, OnlineMethod) else None
        if rollout is None:
            turns = math.ceil(examples / batch_size)
        else:  # whole batches only: what is left over meets another epoch's order
            batch_size = min(batch_size, examples)
            turns = examples // batch_size
            if batch_size < rollout.minibatches:
                raise UserError(
                    f"trainer.batch_size={batch_size} prompts cannot be cut into {rollout.minibatches} minibatches; "
                    "raise it or lower method.minibatches."
                )
        per_epoch = turns * (rollout.updates if rollout else 1)
        epochs = default.epochs if config.epochs is None else config.epochs
        rate = default.learning_rate if adapters else default.full_learning_rate
        return cls(
            learning_rate=rate if config.learning_rate is None else config.learning_rate,
            schedule=config.schedule or default.schedule,
            warmup=default.warmup if config.warmup is None else config.warmup,
            batch_size=batch_size,
            turns_per_epoch=turns,
            steps_per_epoch=per_epoch,
            minibatches=rollout.minibatches if rollout else 1,
            steps=config.steps if config.steps is not None else max(1, round(epochs * per_epoch)),
        )


def method_settings(method: Method) -> dict[str, Any]:
    """Name and hyper-parameters of a method."""
    return {"name": type(method).__name__, **dataclasses.asdict(method)}  # pyright: ignore[reportArgumentType]


def identity(
    method: Method, config: TrainerConfig, plan: Plan, data: TokenizedPreferences, policy: Policy, world: int
) -> dict[str, Any]:
    """What must be the same for a resumed run to be the same run; ``policy`` as it is before the first step."""
    settings = {name: value for name, value in dataclasses.asdict(config).items() if name not in _FREE}
    return {
        "method": method_settings(method),
        "trainer": settings,
        "plan": dataclasses.asdict(plan),
        "data": data.fingerprint,
        "start": weights_fingerprint(policy),
        "world_size": world,
    }
