"""Tables of scores, P prompts × K responses: what a scorer gives is checked here, whoever asks it.

A place where a scorer does not apply holds ``None``. Anything else that is no finite number ends in a `ScorerError`:
no score is ever made up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from align.errors import ScorerError, UserError

if TYPE_CHECKING:
    from align.evaluation import Scorer

ScoreTable = list[list[float | None]]
"""One row per prompt; ``None`` where the scorer does not apply to the response."""


def check_scorers(**scorers: Any) -> None:
    """Check what a combination of scorers is given, by name.

    Raises:
        UserError: It is no scorer; in a configuration a bare name is not made into one.
    """
    for name, scorer in scorers.items():
        if not callable(getattr(scorer, "score", None)):
            raise UserError(f"{name}={scorer!a} is not a scorer; write {name}: {{scorer: NAME}} with its settings.")


@runtime_checkable
class PartialScorer(Protocol):
    """A scorer that may not apply to every response."""

    def score_where_it_applies(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **columns: Sequence[Any]
    ) -> ScoreTable:
        """Return P × K scores, ``None`` where there is none."""
        ...


def score(
    scorer: Scorer, prompts: Sequence[str], responses: Sequence[Sequence[str]], **columns: Sequence[Any]
) -> list[list[float]]:
    """Return the checked scores (P, K) of any scorer, which must apply everywhere.

    Raises:
        ScorerError: Scores are missing, or are no finite numbers.
    """
    return require_all(check_table(scorer.score(prompts, responses, **columns), responses, scorer.name), scorer.name)


def score_where_it_applies(
    scorer: Scorer, prompts: Sequence[str], responses: Sequence[Sequence[str]], **columns: Sequence[Any]
) -> ScoreTable:
    """Return the checked scores of any scorer; ``None`` only from a `PartialScorer`."""
    if isinstance(scorer, PartialScorer):
        return scorer.score_where_it_applies(prompts, responses, **columns)
    return [[*row] for row in score(scorer, prompts, responses, **columns)]


def check_table(table: Any, responses: Sequence[Sequence[str]], name: str) -> ScoreTable:
    """Return the table as floats.

    Raises:
        ScorerError: Another shape than the responses, or an entry that is neither a finite number nor ``None``.
    """
    shape = [len(row) for row in responses]
    try:
        rows = [list(row) for row in table]
    except TypeError:
        rows = []
    if [len(row) for row in rows] != shape:
        raise ScorerError(f"scorer {name!r} must return one score per response, {len(shape)} rows of {_widths(shape)}.")
    return [
        [_number(value, f"scorer {name!r}, prompt {p}, response {k}") for k, value in enumerate(row)]
        for p, row in enumerate(rows)
    ]


def require_all(table: ScoreTable, name: str) -> list[list[float]]:
    """Return the table of a scorer that must apply everywhere.

    Raises:
        ScorerError: An entry is ``None``.
    """
    out: list[list[float]] = []
    for p, row in enumerate(table):
        present = [value for value in row if value is not None]
        if len(present) < len(row):
            raise ScorerError(
                f"scorer {name!r} does not apply to response {row.index(None)} of prompt {p}; leave such prompts out, "
                "or combine it in an ensemble with a scorer that always applies."
            )
        out.append(present)
    return out


def _widths(shape: list[int]) -> str:
    return str(shape[0]) if len(set(shape)) == 1 else str(shape[:8])


def _number(value: Any, place: str) -> float | None:
    if value is None:
        return None
    try:
        number = float(value) if not isinstance(value, str) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ScorerError(f"{place}: {str(value)[:60]!r} is not a finite number; correct the scorer.")
    return number
