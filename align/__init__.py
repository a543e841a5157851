"""The common part of every method: batch, policy and roles, data, trainer, checkpoints, evaluation.

Public names are loaded when asked for, so that configuration can be checked before torch is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from align.system.lazy import lazy

if TYPE_CHECKING:
    from align.data import Preferences
    from align.errors import UserError
    from align.evaluation.evaluator import Evaluator
    from align.method.base import Loss, Method, PairwiseMethod
    from align.model.batch import Batch
    from align.model.policy import Policy
    from align.sampling.params import SamplingParams
    from align.sampling.sampler import Sampler
    from align.settings.adapter import Adapter
    from align.settings.config import TrainerConfig
    from align.training.callbacks import Callback
    from align.training.trainer import Trainer

__all__ = [
    "Adapter",
    "Batch",
    "Callback",
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

__getattr__ = lazy(
    "align",
    {
        "Adapter": "align.settings.adapter",
        "Batch": "align.model.batch",
        "Callback": "align.training.callbacks",
        "Evaluator": "align.evaluation.evaluator",
        "Loss": "align.method.base",
        "Method": "align.method.base",
        "PairwiseMethod": "align.method.base",
        "Policy": "align.model.policy",
        "Preferences": "align.data",
        "Sampler": "align.sampling.sampler",
        "SamplingParams": "align.sampling.params",
        "Trainer": "align.training.trainer",
        "TrainerConfig": "align.settings.config",
        "UserError": "align.errors",
    },
)
