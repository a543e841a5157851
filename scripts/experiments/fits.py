"""How the true reward depends on the distance from the start, in the forms of Gao, Schulman and Hilton (2022).

With d = √KL: ``R(d) = d·(α − β·d)`` for best-of-n, ``R(d) = d·(α − β·log d)`` for reinforcement learning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = ["Fit", "Form", "fit"]

Form = Literal["best_of_n", "reinforcement"]


@dataclass(frozen=True)
class Fit:
    """A fitted form."""

    form: Form
    alpha: float
    beta: float
    residual: float
    """Root mean square of what is left, in units of the reward."""
    peak: float | None
    """d of the largest reward; None where there is none above 0."""


def fit(form: Form, kl: Sequence[float], gain: Sequence[float]) -> Fit:
    """Fit a form by least squares; it is linear in α and β.

    Args:
        form: Which one.
        kl: From the start, nats, above 0.
        gain: Reward minus that of the start.
    """
    d = np.sqrt(np.asarray(kl, dtype=np.float64))
    bend = d if form == "best_of_n" else np.log(d)
    table = np.stack([d, -d * bend], axis=1)
    (alpha, beta), *_ = np.linalg.lstsq(table, np.asarray(gain, dtype=np.float64))
    left = np.asarray(gain) - table @ [alpha, beta]
    peak = None
    if alpha > 0 and beta > 0 and form == "best_of_n":
        peak = float(alpha / (2 * beta))
    elif beta > 0 and form == "reinforcement":
        peak = float(np.exp(alpha / beta - 1))
    return Fit(form, float(alpha), float(beta), float(np.sqrt((left**2).mean())), peak)
