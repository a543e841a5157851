"""Tables of scores, P prompts × K responses, and their check.

An entry is ``None`` where a scorer does not apply. Anything else that is not a finite number raises a `ScorerError`:
no score is ever made up. Every scorer is called through this module, also one inside another, so their means,
deviations and times are recorded here: see `record_scores`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from align.errors import ScorerError, UserError, fault_of_user
from align.scoring.scorer_inputs import prompt_text, scorer_columns
from align.system.signals import Interrupted

if TYPE_CHECKING:
    from align.scoring.scorer import Scorer

ScoreTable = list[list[float | None]]
"""One row per prompt; ``None`` where the scorer does not apply to the response."""


def check_scorers(**scorers: Any) -> None:
    """Check that each value is a scorer; the keyword is the name of its setting.

    Raises:
        UserError: One is not. A bare name in a configuration does not make a scorer.
    """
    for name, scorer in scorers.items():
        if isinstance(scorer, type):
            raise UserError(
                f"{name} is the class {scorer.__name__}; give an object of it, such as {scorer.__name__}()."
            )
        if not callable(getattr(scorer, "score", None)):
            raise UserError(
                f"{name}={scorer!a} is not a scorer; write {name}: {{scorer: NAME}} with its settings, in Python "
                "an object with score(prompts, responses, **columns)."
            )


@runtime_checkable
class PartialScorer(Protocol):
    """A scorer that does not apply to every response."""

    def score_where_it_applies(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **columns: Sequence[Any]
    ) -> ScoreTable:
        """Return P × K scores, ``None`` where there is none."""
        ...


@dataclass
class ScoreLog:
    """Scores by scorer, and the time they took."""

    values: dict[str, list[float]] = field(default_factory=dict[str, "list[float]"])
    """Scores that are not ``None``; a scorer inside another is named by its place (``quality/base``)."""
    seconds: dict[str, float] = field(default_factory=dict[str, float])

    def milliseconds(self) -> dict[str, float]:
        """Return the time per response, by scorer."""
        return {name: 1000 * self.seconds[name] / max(1, len(values)) for name, values in self.values.items()}

    def metrics(self) -> dict[str, tuple[float, float]]:
        """Return ``scores/NAME`` (the mean) and ``…/milliseconds`` per response, as sums and weights."""
        out: dict[str, tuple[float, float]] = {}
        for name, values in self.values.items():
            n = len(values)
            out[f"scores/{name}"] = (float(np.sum(values)), n)
            out[f"scores/{name}/milliseconds"] = (1000 * self.seconds[name], n)
        return out


def deviations(logs: Iterable[Mapping[str, Sequence[float]]]) -> dict[str, float]:
    """Return ``scores/NAME/std`` over the scores of several logs, which their own deviations do not give.

    It is 0 where all are equal, to the last bit.
    """
    together: dict[str, list[float]] = {}
    for values in logs:
        for name, some in values.items():
            together.setdefault(name, []).extend(some)
    return {
        f"scores/{name}/std": float(np.std(values)) if min(values) < max(values) else 0.0
        for name, values in sorted(together.items())
        if values
    }


LARGEST = 1e15
"""Bound on the size of a score: sums of squares of many below it are far from the largest float32."""

_log: ContextVar[ScoreLog | None] = ContextVar("log", default=None)
_place: ContextVar[tuple[str, ...]] = ContextVar("place", default=())


@contextmanager
def record_scores(log: ScoreLog | None = None) -> Generator[ScoreLog]:
    """Record the scores of every scorer called inside the block, in a log that may have others."""
    log = ScoreLog() if log is None else log
    token = _log.set(log)
    try:
        yield log
    finally:
        _log.reset(token)


def score(
    scorer: Scorer, prompts: Sequence[str], responses: Sequence[Sequence[str]], /, **columns: Sequence[Any]
) -> list[list[float]]:
    """Return the checked scores (P, K) of any scorer, which must apply everywhere.

    Raises:
        ScorerError: A score is missing or is not a finite number.
    """
    with _recorded(scorer.name, ()) as tables:
        given = _asked(scorer.name, partial(scorer.score, prompts, responses, **columns))
        table = check_table(given, responses, scorer.name)
        tables.append(table)
    return require_all(table, scorer.name)


def score_texts(
    scorer: Scorer, rows: Sequence[Mapping[str, Any]], responses: Sequence[Sequence[str]]
) -> list[list[float]]:
    """Return the scores (P, K) of K responses to the prompt of each row; all are finite numbers.

    Raises:
        ScorerError: A score is missing or is not a finite number.
    """
    return score(scorer, [prompt_text(row["prompt"]) for row in rows], responses, **scorer_columns(rows))


def score_part(
    name: str, scorer: Scorer, prompts: Sequence[str], responses: Sequence[Sequence[str]], /, **columns: Sequence[Any]
) -> ScoreTable:
    """Return the checked scores of a scorer that another one holds under ``name``; ``None`` where it does not apply.

    Raises:
        ScorerError: A score is missing or is not a finite number.
    """
    with _recorded(name, (*_place.get(), name)) as tables:
        everywhere = not isinstance(scorer, PartialScorer)
        ask = scorer.score if everywhere else scorer.score_where_it_applies
        given = _asked(scorer.name, partial(ask, prompts, responses, **columns))
        table = check_table(given, responses, scorer.name)
        if everywhere:
            require_all(table, scorer.name)
        tables.append(table)
    return table


def score_parts(
    name: str,
    scorers: Mapping[str, Scorer],
    prompts: Sequence[str],
    responses: Sequence[Sequence[str]],
    /,
    **columns: Sequence[Any],
) -> list[list[dict[str, float]]]:
    """Return for each response (P, K) the checked scores of the scorers that apply to it, by scorer.

    ``name`` is the combination's, for the message.

    Raises:
        ScorerError: No scorer applies to a response; or as :func:`score_part`.
    """
    tables = {part: score_part(part, scorer, prompts, responses, **columns) for part, scorer in scorers.items()}
    out: list[list[dict[str, float]]] = []
    for p, row in enumerate(responses):
        cells = [{part: table[p][k] for part, table in tables.items()} for k in range(len(row))]
        out.append([{part: value for part, value in cell.items() if value is not None} for cell in cells])
        if not all(out[-1]):
            raise ScorerError(f"{name}: no scorer applies to a response to prompt {p}; add one that always does.")
    return out


@contextmanager
def _recorded(name: str, place: tuple[str, ...]) -> Generator[list[ScoreTable]]:
    """Log the tables that the block puts into the list; scorers called inside it are named under ``place``."""
    began, tables, token = time.perf_counter(), list[ScoreTable](), _place.set(place)
    try:
        yield tables
    finally:
        _place.reset(token)
    log = _log.get()
    if log is None:
        return
    name = "/".join(place) or name
    values = log.values.setdefault(name, [])
    values.extend(value for table in tables for row in table for value in row if value is not None)
    log.seconds[name] = log.seconds.get(name, 0.0) + time.perf_counter() - began


def _asked(name: str, ask: Callable[[], Any]) -> Any:
    """Ask a scorer; the error names the place in the user's code where it fails. ``sys.exit`` is a failure too."""
    try:
        return ask()
    except (ScorerError, UserError, Interrupted):
        raise
    except (Exception, SystemExit) as error:
        fault = fault_of_user(error)
        if fault is None:
            raise
        raise ScorerError(f"scorer {name!r} failed at {fault}; correct it.") from error


def check_table(table: Any, responses: Sequence[Sequence[str]], name: str) -> ScoreTable:
    """Return the table as floats.

    Raises:
        ScorerError: The table has another shape than the responses, or an entry is neither finite nor ``None``.
    """
    shape = [len(row) for row in responses]
    try:
        rows = [] if isinstance(table, str | Mapping) else [list(row) for row in table]
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
        number = math.nan if isinstance(value, str | bytes | bool | np.bool_) else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number = math.nan
    if not math.isfinite(number):
        raise ScorerError(f"{place}: {_shown(value)} is not a finite number; correct the scorer.")
    if abs(number) > LARGEST:
        raise ScorerError(f"{place}: {number:g} is beyond ±{LARGEST:g}; let the scorer give smaller numbers.")
    return number


def _shown(value: Any) -> str:
    try:
        return repr(str(value)[:60])
    except ValueError:  # Python prints no integer of more than 4,300 digits
        return f"an integer of {value.bit_length()} bits"
