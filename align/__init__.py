"""The common part of every method: batch, policy and roles, data, trainer, checkpoints, evaluation.

Public names are loaded when asked for, so that configuration can be checked before torch is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from align.adapter import Adapter
    from align.batch import Batch
    from align.config import TrainerConfig
    from align.data import Preferences
    from align.errors import UserError
    from align.evaluation import Evaluator
    from align.method import Loss, Method, PairwiseMethod
    from align.policy import Policy
    from align.sampling import Sampler, SamplingParams
    from align.trainer import Trainer

__all__ = [
    "Adapter",
    "Batch",
    "Evaluator",
    "Loss",
    "Method",
    "PairwiseMethod",
    "Policy",
    "Preferences",
    "Sampler",
    "SamplingParams",
    "Trainer",
    "TrainerConfig",
    "UserError",
]

_WHERE = {
    "Adapter": "align.adapter",
    "Batch": "align.batch",
    "Evaluator": "align.evaluation",
    "Loss": "align.method",
    "Method": "align.method",
    "PairwiseMethod": "align.method",
    "Policy": "align.policy",
    "Preferences": "align.data",
    "Sampler": "align.sampling",
    "SamplingParams": "align.sampling",
    "Trainer": "align.trainer",
    "TrainerConfig": "align.config",
    "UserError": "align.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'align' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
