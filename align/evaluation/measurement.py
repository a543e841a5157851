"""Measurements of a policy, and how two of them compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from align.evaluation import statistics
from align.evaluation.statistics import Estimate


@dataclass(frozen=True)
class Sample:
    """One response and its measurements."""

    prompt: str
    response: str
    tokens: int
    """Length of the response, end-of-turn token included."""
    kl: float | None
    """Estimate of KL(π‖π_ref) for this prompt, nats, at least 0: see :class:`align.evaluation.evaluator.Evaluator`."""
    scores: Mapping[str, float]
    source: str | None = None


@dataclass(frozen=True)
class Measurement:
    """The measurements of a policy at one time."""

    samples: Sequence[Sample]
    preferred: Sequence[float] = ()
    """For each held-out pair 1 if its chosen response has the larger ``log π − log π_ref``, 0 if the rejected one has,
    ½ for a tie."""
    pair_prompts: Sequence[str] | Sequence[int] = ()
    """A name for the prompt of each of these pairs; none: each has another one."""

    def metrics(self) -> dict[str, float]:
        """Means over samples and pairs, under the names of ``evaluation.json``."""
        out = {name: estimate.mean for name, estimate in self.estimates().items()}
        diversity = statistics.distinct_n([sample.response for sample in self.samples], 2)
        return out if diversity is None else {**out, "distinct_2": diversity}

    def estimates(self) -> dict[str, Estimate]:
        """The metrics that are means or rates, with their intervals."""
        out: dict[str, Estimate] = {}
        if self.samples:
            read: dict[str, Callable[[Sample], float | None]] = {
                name: lambda sample, name=name: sample.scores[name] for name in self.samples[0].scores
            }
            read |= {"kl": lambda sample: sample.kl, "response_length": lambda sample: sample.tokens}
            for name, of in read.items():
                values = [value for value in map(of, self.samples) if value is not None]
                if values:
                    is_score = name in self.samples[0].scores
                    out[name] = statistics.score(values) if is_score else statistics.mean(values, least=0.0)
        if self.preferred:
            out["preference_accuracy"] = statistics.rate(self.preferred, self.pair_prompts or None)
        return out


@dataclass(frozen=True)
class Beside:
    """A model other than the one that training began from, measured to be compared with the trained one."""

    name: str
    role: str
    """As it is called in sentences: the model that drew the candidates …"""
    measurement: Measurement


def compare(before: Measurement, after: Measurement) -> dict[str, Any]:
    """``evaluation.json``: every metric before and after, the intervals of means and rates, and the win rate of after.

    A win is a higher score of the first scorer on the same prompt, a tie counts half.
    """
    report = tabulate({"before": before, "after": after})
    won = win_rate(before, after)
    return report if won is None else {**report, "win_rate": won}


def tabulate(measured: Mapping[str, Measurement]) -> dict[str, Any]:
    """Entries of ``evaluation.json`` for measurements by time or by model: ``metrics``, ``intervals`` and ``n``.

    ``intervals`` has an :class:`align.evaluation.statistics.Estimate` for each metric that is a mean or a rate.
    """
    values = {when: measurement.metrics() for when, measurement in measured.items()}
    names = {name: None for found in values.values() for name in found}
    last = list(measured.values())[-1]
    intervals: dict[str, dict[str, Any]] = {}
    for when, measurement in measured.items():
        for name, estimate in measurement.estimates().items():
            intervals.setdefault(name, {})[when] = asdict(estimate)
    return {
        "metrics": {name: {when: found.get(name) for when, found in values.items()} for name in names},
        "intervals": intervals,
        "n": {"prompts": len(last.samples), "pairs": len(last.preferred)},
    }


def win_rate(before: Measurement, after: Measurement) -> dict[str, Any] | None:
    """Win rate of ``after`` over ``before`` by the first scorer, an :class:`Estimate` with ``by``; None without one."""
    if not before.samples or not before.samples[0].scores:
        return None
    decisive = next(iter(before.samples[0].scores))
    pairs = zip(before.samples, after.samples, strict=True)
    won = statistics.win_rate([b.scores[decisive] - a.scores[decisive] for a, b in pairs])
    return {"by": decisive, **asdict(won)}


def showcase(samples: Sequence[Sample], limit: int) -> list[int]:
    """Indices of at most ``limit`` samples to show a person: one of each source first, then the others in order."""
    firsts = list({sample.source: i for i, sample in reversed(list(enumerate(samples)))}.values())
    others = [i for i in range(len(samples)) if i not in firsts]
    return sorted([*sorted(firsts), *others][:limit])
