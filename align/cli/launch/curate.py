"""The rows that a run trains on: chosen or mixed of those of the data, as its settings say."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from align.cli.console import say
from align.errors import UserError
from align.system.processes import Processes

if TYPE_CHECKING:
    from align.data import Preferences
    from align.settings.config import RunConfig

__all__ = ["curate"]

_SETTINGS = {
    "select: ": "",
    "--rows=": "data.select=",
    "--per-source=": "data.select_per_source=",
    "--by=": "data.select_by=",
    "--by ": "data.select_by=",
    "--columns=": "data.columns=",
}


def curate(config: RunConfig, data: Preferences, rows: Sequence[int], sizes: Sequence[int]) -> Preferences:
    """Return the rows of the data to train on, of those at ``rows``.

    Few are chosen (``data.select``), and of these so many prompts are kept (``data.max_prompts``); or all are mixed at
    rates, after so many prompts are kept of each source that they have these rates too.

    Args:
        config: Of the run.
        data: All rows, also those that are held out.
        rows: Not held out, in order.
        sizes: Rows of each source of ``data``, in order.
    """
    if config.data.rates is not None:
        return data.select(_mixed(config, data, rows, sizes))
    kept = data if len(rows) == len(data) else data.select(rows)
    chosen = kept if config.data.select is None else _selected(config, kept)
    n = config.data.max_prompts
    return chosen if n is None else chosen.select(_of_few_prompts(chosen.questions(), range(len(chosen)), n, config))


def _of_few_prompts(questions: Sequence[str], rows: Sequence[int], n: int, config: RunConfig) -> list[int]:
    """Return those rows that ask one of ``n`` prompts, drawn by the seed; all where there are no more prompts."""
    prompts = list(dict.fromkeys(questions[row] for row in rows))
    if len(prompts) <= n:
        return list(rows)
    drawn = set(random.Random(config.seed).sample(prompts, n))
    kept = [row for row in rows if questions[row] in drawn]
    say(f"{len(kept):,} rows of {n:,} of the {len(prompts):,} prompts are kept (data.max_prompts)")
    return kept


def _mixed(config: RunConfig, data: Preferences, rows: Sequence[int], sizes: Sequence[int]) -> list[int]:
    """Return the rows of a mixture of the sources; an epoch of it is all of them, a capped source up to its cap."""
    from align.curation.mixing import mixing_rates, mixture

    settings = config.data
    assert settings.rates is not None
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    of_source: dict[str, list[int]] = {source: [] for source in settings.train}
    for row in rows:
        of_source[settings.train[next(i for i, end in enumerate(ends) if row < end)]].append(row)
    left = {source: len(own) for source, own in of_source.items()}
    if empty := [source for source, size in left.items() if not size]:
        raise UserError(f"data.rates: {empty[0]} has no rows to train on; leave it out of data.train.")
    rates = mixing_rates(left, settings.rates, cap=settings.cap, temperature=settings.temperature)
    if settings.max_prompts is not None:
        questions = data.questions()
        for source, rate in rates.items():
            few = max(1, round(rate * settings.max_prompts))
            of_source[source] = _of_few_prompts(questions, of_source[source], few, config)
        left = {source: len(own) for source, own in of_source.items()}
    n = sum(min(size, settings.cap or size) for size in left.values())
    shares = ", ".join(f"{source} {rate:.1%} ({left[source]:,} rows)" for source, rate in rates.items())
    say(f"{n:,} rows are mixed at {settings.rates} rates: {shares}")
    return [of_source[source][row] for source, row in mixture(left, rates, n, seed=config.seed)]


def _selected(config: RunConfig, data: Preferences) -> Preferences:
    from align.curation.selection import quality, quality_scorer, select

    settings = config.data
    assert settings.select is not None
    n = settings.select

    def choose() -> list[int]:
        values = quality(data, settings.select_by, quality_scorer(settings.select_by))
        found = select(data, n, values, per_source=settings.select_per_source, seed=config.seed)
        say(found.summary(len(data), settings.select_by))
        return list(found.rows)

    try:
        return data.select(Processes().on_first(choose))
    except UserError as error:  # it names the options of `align data select`
        message = str(error)
        for option, setting in _SETTINGS.items():
            message = message.replace(option, setting)
        raise UserError(message) from error
