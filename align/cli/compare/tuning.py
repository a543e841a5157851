"""Settings that each method may try: as many for one as for another."""

from __future__ import annotations

from typing import Any

import numpy as np

from align.cli.launch.assemble import assemble
from align.cli.parse.job import Job
from align.training.identity import trainer_settings

__all__ = ["SEED", "candidates", "score"]

SEED = 1000
"""Added to the first seed: no run that is reported has the seed of one that chose its settings."""
_GRID = ((1, 1), (3, 1), (1 / 3, 1), (1, 1 / 3), (1, 3), (3, 3), (1 / 3, 1 / 3), (10, 1), (1 / 10, 1), (3, 1 / 3))
"""Factors of the learning rate and of the tie to the reference, in the order in which they are tried."""


def candidates(job: Job, count: int) -> list[list[str]]:
    """Return the words of so many settings; the first are none, the method's own settings.

    A method without a strength of the tie (``beta``) has the learning rates of the grid alone.
    """
    run = assemble(job.runs[-1])
    rate = trainer_settings(run.method, run.config.trainer, adapters=run.config.adapter is not None)["learning_rate"]
    tie: float | None = getattr(run.method, "beta", None)
    grid = list(dict.fromkeys((r, b if tie else 1) for r, b in _GRID))
    return [
        [
            *([f"trainer.learning_rate={rate * r:.6g}"] if r != 1 else []),
            *([f"method.beta={tie * b:.6g}"] if tie and b != 1 else []),
        ]
        for r, b in grid[:count]
    ]


def score(measured: Any) -> float:
    """Return what the best setting has most of: the mean score."""
    return float(np.mean(measured["scores"]))
