"""A rule: one sign of a run that goes wrong, with the number and what to try."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from align.diagnosis.course import Course

__all__ = ["Finding", "Rule", "rule"]


@dataclass(frozen=True)
class Finding:
    """One thing that is unhealthy."""

    name: str
    says: str
    """The thing itself, with its number."""
    tries: tuple[str, ...]
    """Remedies that the settings of the run allow, the likeliest first."""

    @property
    def sentence(self) -> str:
        """Both in one sentence."""
        *others, last = self.tries
        return f"{self.says}; {', '.join(others)}{' or ' if others else ''}{last}."


@dataclass(frozen=True)
class Rule:
    """Looks at the course of a run."""

    name: str
    reads: tuple[str, ...]
    """Metrics, as in ``metrics.jsonl``, and files of the run's folder; it finds nothing where all are missing."""
    tries: tuple[str, ...]
    """Remedies; one that names a setting of the method (``method.x``, or ``{tie}``) is for methods that have it."""
    says: Callable[[Course], str | None]

    def find(self, course: Course) -> Finding | None:
        """Return what is unhealthy, None if nothing is."""
        said = self.says(course)
        return None if said is None else Finding(self.name, said, self._remedies(course))

    def _remedies(self, course: Course) -> tuple[str, ...]:
        tie = course.resolved.get("tie")
        filled = [text.replace("{tie}", f"method.{tie}") for text in self.tries if tie or "{tie}" not in text]
        known = [text for text in filled if set(re.findall(r"\bmethod\.(\w+)", text)) <= set(course.method)]
        return tuple(dict.fromkeys(known))


def rule(
    name: str, *, reads: tuple[str, ...], tries: tuple[str, ...]
) -> Callable[[Callable[[Course], str | None]], Rule]:
    """Make a rule of the function that says what is unhealthy; at least one remedy fits every method."""
    return lambda says: Rule(name, reads, tries, says)
