"""Demonstrations: answers in different manners, of which only one is really good.

Real demonstrations are of mixed quality; these are mixed on purpose, so that preferences can teach something.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from align.world.facts import World
from align.world.grammar import Claim, say
from align.world.task import Task

# Share of each manner in the shipped demonstrations.
SHARES = {"good": 0.22, "plain": 0.24, "curt": 0.14, "rambling": 0.16, "rude": 0.14, "careless": 0.10}


class DemonstrationWriter:
    """Answers tasks in a given or a random manner."""

    def __init__(self, world: World, seed: int) -> None:
        self._rng = random.Random(f"writers-{seed}")
        self._facts = sorted(world.claims, key=lambda claim: (claim.frame, claim.slots))
        self._manners: dict[str, Callable[[Task], str]] = {
            "good": self._good,
            "plain": lambda task: self._rng.choice(task.references),
            "curt": lambda task: task.curt,
            "rambling": self._rambling,
            "rude": self._rude,
            "careless": self._careless,
        }

    def write(self, task: Task, manner: str | None = None) -> tuple[str, str]:
        """Return an answer and its manner (drawn from `SHARES` unless given)."""
        chosen = manner or self._rng.choices(list(SHARES), list(SHARES.values()))[0]
        return self._manners[chosen](task), chosen

    def _phrase(self, frame: str) -> str:
        return say(Claim(frame), self._rng)

    def _around(self, extra: str, core: str) -> str:
        """Put a remark before the answer, or after it if nothing may follow the answer."""
        if "####" in core or self._rng.random() < 0.75:
            return f"{extra} {core}"
        return f"{core} {extra}"

    def _good(self, task: Task) -> str:
        return self._around(self._phrase("courtesy"), self._rng.choice(task.references))

    def _rude(self, task: Task) -> str:
        return self._around(self._phrase("rude"), self._rng.choice(task.references))

    def _rambling(self, task: Task) -> str:
        core = self._rng.choice(task.references)
        if self._rng.random() < 0.5:
            aside = say(self._rng.choice(self._facts), self._rng)
            return f"{self._phrase('filler')} {self._around(aside, core)}"
        if self._rng.random() < 0.5:
            core = f"{self._phrase('courtesy')} {core}"
        return self._around(f"{self._phrase('filler')} {self._phrase('filler')}", core)

    def _careless(self, task: Task) -> str:
        if self._rng.random() < 0.5:
            return task.careless
        return self._around(self._phrase("courtesy"), task.careless)
