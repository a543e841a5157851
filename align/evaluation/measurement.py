"""Measurements of a policy, and how two of them compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from torch import Tensor

Differences = TypeVar("Differences", "Tensor", NDArray[np.float64])

_RESAMPLES = 10_000


@dataclass(frozen=True)
class Sample:
    """One response and its measurements."""

    prompt: str
    response: str
    tokens: int
    """Length of the response, end-of-turn token included."""
    kl: float | None
    """``Σ_t log π(y_t) − log π_ref(y_t)`` in nats; its mean over samples estimates KL(π‖π_ref)."""
    scores: Mapping[str, float]
    source: str | None = None


@dataclass(frozen=True)
class Measurement:
    """The measurements of a policy at one time."""

    samples: Sequence[Sample]
    preference_accuracy: float | None
    """Share of held-out pairs whose chosen response has the larger ``log π − log π_ref``; ties count half."""
    preferred: Sequence[float] = ()
    """The same for each held-out pair: 1, 0, or ½ for a tie; empty when read back from a log."""

    def metrics(self) -> dict[str, float]:
        """Means over samples, under the names of ``evaluation.json``."""
        out: dict[str, float] = {}
        if self.samples:
            for name in self.samples[0].scores:
                out[name] = float(np.mean([sample.scores[name] for sample in self.samples]))
            divergences = [sample.kl for sample in self.samples if sample.kl is not None]
            if divergences:
                out["kl"] = float(np.mean(divergences))
            out["response_length"] = float(np.mean([sample.tokens for sample in self.samples]))
            out["distinct_2"] = distinct_n([sample.response for sample in self.samples], 2)
        if self.preference_accuracy is not None:
            out["preference_accuracy"] = self.preference_accuracy
        return out


def compare(before: Measurement, after: Measurement, *, seed: int = 0) -> dict[str, Any]:
    """``evaluation.json``: every metric before and after, on how many prompts and pairs, and the win rate of after.

    A win is a higher score of the first scorer on the same prompt, a tie counts half. Without a scorer the win rate is
    by likelihood: the share of held-out pairs whose chosen response gained more log-probability since the reference
    than the rejected one.
    """
    old, new = before.metrics(), after.metrics()
    report: dict[str, Any] = {
        "metrics": {name: {"before": old.get(name), "after": new.get(name)} for name in {**old, **new}},
        "n": {"prompts": len(after.samples), "pairs": len(after.preferred)},
    }
    if before.samples and before.samples[0].scores:
        decisive = next(iter(before.samples[0].scores))
        pairs = zip(before.samples, after.samples, strict=True)
        difference = [b.scores[decisive] - a.scores[decisive] for a, b in pairs]
        report["win_rate"] = {"by": decisive, **win_rate(difference, seed=seed)}
    elif after.preferred:
        report["win_rate"] = {"by": "likelihood", **win_rate(np.array(after.preferred) - 0.5, seed=seed)}
    return report


def ordered_right(differences: Differences) -> Differences:
    """1 for a positive difference (the comparison is ordered right), ½ for a tie, 0 for a negative one.

    The mean is an accuracy in which ties count half, so that a model that tells nothing apart has ½.
    """
    return 0.5 * (differences > 0) + 0.5 * (differences >= 0)


def win_rate(differences: ArrayLike, *, seed: int = 0) -> dict[str, float]:
    """Share of wins with a 95 % bootstrap interval, from score differences (N,) or (S, N); ties count half.

    Of S runs on the same N prompts both runs and prompts are drawn anew in each of 10,000 resamples: the crossed, or
    pigeonhole, bootstrap of Owen (2007), which scipy does not have. ``n`` is the number of prompts.
    """
    wins_SN = ordered_right(np.round(np.atleast_2d(np.asarray(differences, dtype=np.float64)), 9))
    runs, n = wins_SN.shape
    rng = np.random.default_rng(seed)
    means = [wins_SN[rng.integers(runs, size=runs)][:, rng.integers(n, size=n)].mean() for _ in range(_RESAMPLES)]
    low, high = np.quantile(means, (0.025, 0.975))
    return {"mean": float(wins_SN.mean()), "low": float(low), "high": float(high), "n": n}


def showcase(samples: Sequence[Sample], limit: int) -> list[int]:
    """Indices of at most ``limit`` samples to show a person: one of each source first, then the others in order."""
    firsts = list({sample.source: i for i, sample in reversed(list(enumerate(samples)))}.values())
    others = [i for i in range(len(samples)) if i not in firsts]
    return sorted([*sorted(firsts), *others][:limit])


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Distinct n-grams of words divided by all n-grams (Li et al. 2016); 0 where there is none."""
    grams = [tuple(words[i : i + n]) for text in texts for words in [text.split()] for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0
