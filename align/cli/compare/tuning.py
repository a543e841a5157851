"""Settings that each method may try, as many for one as for another; and ties of other strengths to the reference."""

from __future__ import annotations

from typing import Any

import numpy as np

from align.cli.launch.run import assemble
from align.cli.parse.job import Job
from align.training.identity import trainer_settings

__all__ = ["SEED", "candidates", "score", "sweep"]

SEED = 1000
"""Added to the first seed: no run that is reported has the seed of one that chose its settings."""
_GRID = ((1, 1), (3, 1), (1 / 3, 1), (1, 1 / 3), (1, 3), (3, 3), (1 / 3, 1 / 3), (10, 1), (1 / 10, 1), (3, 1 / 3))
"""Factors of the learning rate and of the tie to the reference, in the order in which they are tried."""
_SWEEP = (1 / 10, 1 / 3, 1, 3, 10)
"""Factors of the tie along a frontier."""


def candidates(job: Job, count: int) -> list[list[str]]:
    """Return the words of so many settings; the first are none, the method's own settings.

    A method without a tie to the reference (``Method.tie``) has the learning rates of the grid alone.
    """
    run = assemble(job.runs[-1])
    rate = trainer_settings(run.method, run.config.trainer, adapters=run.config.adapter is not None)["learning_rate"]
    tie, strength = _tie(run.method)
    grid = list(dict.fromkeys((r, b if strength else 1) for r, b in _GRID))
    return [
        [
            *([f"trainer.learning_rate={rate * r:.6g}"] if r != 1 else []),
            *([f"method.{tie}={strength * b:.6g}"] if b != 1 else []),
        ]
        for r, b in grid[:count]
    ]


def sweep(job: Job) -> tuple[str, dict[float, list[str]]]:
    """Return the setting that ties the method to the reference, and the words of each strength of it along a frontier.

    The words of its own strength are none. There are no strengths where the method has no tie, or one of 0.
    """
    tie, strength = _tie(assemble(job.runs[-1]).method)
    strengths = {float(f"{strength * factor:.6g}"): factor for factor in _SWEEP} if strength else {}
    return tie, {value: [] if factor == 1 else [f"method.{tie}={value:g}"] for value, factor in strengths.items()}


def score(measured: Any) -> float:
    """Return what the best setting has most of: the mean score."""
    return float(np.mean(measured["scores"]))


def _tie(method: Any) -> tuple[str, float]:
    """Return the name and the value of the setting; no name and 0 where there is none."""
    return (method.tie, float(getattr(method, method.tie))) if method.tie else ("", 0.0)
