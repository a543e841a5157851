"""A check: one property that a run needs, and the sentence where it is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from align.doctor.patient import NotReached, Patient
from align.errors import ScorerError, UserError
from align.training.step import TrainingError

__all__ = ["Check", "Finding", "State", "check", "examine"]

State = Literal["good", "wrong", "skipped"]


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    name: str
    state: State
    says: str
    """Of a good one the fact, of a wrong one a sentence with the remedy, of a skipped one the reason."""


@dataclass(frozen=True)
class Check:
    """Looks at one property of a run."""

    name: str
    looks_at: str
    """For the table of ``docs/doctor.md``."""
    free: bool
    """It costs nothing, so it also runs before each training."""
    examine: Callable[[Patient], str | None]
    """Returns the fact; None where the run has no such property. Raises `UserError` where something is wrong."""

    def find(self, patient: Patient) -> Finding:
        """Examine a run."""
        try:
            fact = self.examine(patient)
        except NotReached as reason:
            return Finding(self.name, "skipped", f"not reached: {reason}")
        except (UserError, ScorerError, TrainingError) as error:
            return Finding(self.name, "wrong", str(error))
        return Finding(self.name, "skipped", "not asked for") if fact is None else Finding(self.name, "good", fact)


def check(name: str, looks_at: str, *, free: bool = False) -> Callable[[Callable[[Patient], str | None]], Check]:
    """Make a check of the function that examines a run."""
    return lambda examine: Check(name, looks_at, free, examine)


def examine(patient: Patient, checks: Sequence[Check]) -> Iterator[Finding]:
    """Examine a run by one check after the other."""
    return (one.find(patient) for one in checks)
