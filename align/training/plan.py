"""The plan of a run, settled before its first step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from align.errors import UserError

if TYPE_CHECKING:
    from align.method.base import Method
    from align.settings.config import TrainerConfig
    from align.settings.sampling import SamplingConfig


def require_optimizer(config: TrainerConfig) -> None:
    """Check that the optimiser is installed.

    Raises:
        UserError: It is not.
    """
    if config.optimizer == "adamw_8bit" and find_spec("bitsandbytes") is None:
        raise UserError("trainer.optimizer=adamw_8bit needs bitsandbytes; pip install bitsandbytes, or use adamw.")


def require_effects(config: TrainerConfig, method: Method) -> None:
    """Check that the method and its schedule use what ``config`` asks for.

    Raises:
        UserError: A setting would have no effect.
    """
    schedule = config.schedule or method.optimization.schedule
    if config.final_learning_rate and schedule == "constant":
        raise UserError(
            f"trainer.final_learning_rate={config.final_learning_rate:g} has no effect on trainer.schedule=constant; "
            "take linear or cosine, or leave it out."
        )
    if config.residual_dropout and not method.dropout:
        raise UserError(
            f"trainer.residual_dropout={config.residual_dropout:g} has no effect on {type(method).__name__}, which "
            "compares the policy's passes without dropout; leave it out."
        )


def require_drawn_by(sampling: SamplingConfig, method: Method) -> None:
    """Check that the engine draws what the method needs.

    Raises:
        UserError: It cannot.
    """
    try:
        if method.rollout is not None:
            method.rollout.sampling.require_drawn_by(sampling.engine, logps=True)
        if method.candidates is not None:
            method.candidates.sampling.require_drawn_by(sampling.engine, logps=False)
    except UserError as error:
        raise UserError(f"method.{error}") from None
    if sampling.engine != "local" and method.candidates is not None and method.candidates.sources:
        raise UserError(
            f"method.sources: sampling.engine={sampling.engine} has no other model than the policy; leave it out, or "
            "take sampling.engine=local."
        )


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

    @property
    def passes(self) -> float:
        """How often the run meets each row of the data."""
        return self.steps / self.steps_per_epoch

    @classmethod
    def of(cls, config: TrainerConfig, method: Method, *, examples: int, adapters: bool) -> Plan:
        """Resolve ``config`` against the method's :class:`align.method.base.Optimization` for this much data."""
        require_effects(config, method)
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
