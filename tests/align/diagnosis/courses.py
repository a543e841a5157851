"""Courses of runs made of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

from align.diagnosis.course import Course
from align.diagnosis.rules import examine
from align.evaluation.measurement import Measurement, Sample


def course(
    metrics: dict[str, Sequence[float]],
    *evaluations: Measurement,
    steps: int | None = None,
    tie: str | None = "beta",
    method: dict[str, Any] | None = None,
    **settings: Any,
) -> Course:
    """A finished run, or one of ``steps``; its first evaluation is that of the start model."""
    length = max(map(len, metrics.values()), default=1)
    known = {"beta": 0.1} if method is None else method
    made = Course({"method": known, "resolved": {"steps": steps or length, "tie": tie}, **settings})
    for name, values in metrics.items():
        for step, value in enumerate(values, start=1):
            made.add(step, {name: value})
    made.evaluations = dict(zip(count(0, length), evaluations, strict=False))
    return made


def names(run: Course) -> list[str]:
    """Names of all that is unhealthy."""
    return [finding.name for finding in examine(run)]


def steady(first: float, last: float, n: int = 5) -> list[float]:
    """``n`` of one value, ``n`` of the other: of which the averages are."""
    return [first] * n + [last] * n


def answered(
    *texts: str,
    scores: Sequence[float] = (),
    tokens: Sequence[int] | int = 10,
    kl: float = 0.5,
    preferred: Sequence[float] = (),
    name: str = "judge",
) -> Measurement:
    """An evaluation in which each text is an answer."""
    lengths = [tokens] * len(texts) if isinstance(tokens, int) else tokens
    scored = scores or [0.0] * len(texts)
    samples = [
        Sample(f"prompt {i}", text, length, kl, {name: score})
        for i, (text, length, score) in enumerate(zip(texts, lengths, scored, strict=True))
    ]
    return Measurement(samples, list(preferred))


def different(n: int, word: str = "word") -> list[str]:
    """Answers of which no two are the same."""
    return [f"{word} {i}" for i in range(n)]
