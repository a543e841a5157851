"""The interface of every scorer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Scorer(Protocol):
    """Anything that gives responses a number; higher is better."""

    @property
    def name(self) -> str:
        """Name in metrics, tables and reports."""
        ...

    def score(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **columns: Sequence[Any]
    ) -> Sequence[Sequence[float]]:
        """Return the scores (P, K) of K responses to each of P prompts; ``columns`` are data columns."""
        ...
