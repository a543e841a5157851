"""The answer of a comparison in sentences: which method to take, how sure that is, and what would decide it."""

from __future__ import annotations

from collections.abc import Sequence

from align.comparison.differences import LEVEL, needed
from align.comparison.results import Results, Row

_MUCH_LESS = 0.5
"""A cost below this share of another is worth a sentence."""


def answer(found: Results, *, start: str) -> list[str]:
    """Return the sentences, the answer itself first."""
    ranking = found.ranking
    of = f"on these {found.prompts:,} prompts" + (f" and {len(found.seeds)} seeds" if len(found.seeds) > 1 else "")
    best, tied = ranking.order[0], [label for label in ranking.tied if label != start]
    if best == start or start in ranking.tied:
        first = f"No method is shown to be better than the start model {of}."
        better = [row.label for row in found.rows if row.p_gain is not None and row.p_gain < LEVEL and _gain(row) > 0]
        if better:  # by the mean over all, but the best one of a wide spread is not
            first = f"{_listed(better)} {'is' if len(better) == 1 else 'are'} better than the start model {of}; the best score is not sure to be."
    elif len(tied) == 1:
        first = f"Take {best}: it is better than every other method {of}."
    else:
        first = (
            f"{best} has the best score, but {_listed(tied[1:])} cannot be told apart from it {of}: take the cheapest of "
            "them."
        )
    sentences = [first, *_costs(found, tied if len(tied) > 1 else [best], start), *_worse(found, start)]
    sentences += _lengths(found)
    return sentences + _what_would_decide(found, start)


def _costs(found: Results, tied: Sequence[str], start: str) -> list[str]:
    """Say which of the equals is the cheapest, or what a much cheaper one than the best would cost in score."""
    rows = [row for row in found.rows if row.cost is not None and row.label != start]
    if not rows:
        return []
    sentences: list[str] = []
    for name, of, shown in (
        ("time", lambda row: row.cost.seconds, lambda value: f"{value:,.0f} s"),
        ("memory", lambda row: row.cost.peak_bytes, lambda value: f"{value / 2**30:.2f} GiB"),
    ):
        among = [row for row in rows if row.label in tied]
        if len(tied) > 1 and among:
            least = min(among, key=of)
            sentences.append(f"Of these, {least.label} took the least {name} ({shown(of(least))}).")
        elif among:
            cheaper = [row for row in rows if of(row) < _MUCH_LESS * of(among[0]) and _gain(row) > 0 and _sure(row)]
            if cheaper:
                second = max(cheaper, key=lambda row: row.score.mean)
                sentences.append(
                    f"Where {name} matters: {second.label} took {shown(of(second))} instead of {shown(of(among[0]))}, for a "
                    f"score of {second.score.mean:.3f} instead of {among[0].score.mean:.3f}."
                )
    return sentences


def _worse(found: Results, start: str) -> list[str]:
    worse = [row.label for row in found.rows if row.gain is not None and _sure(row) and _gain(row) < 0]
    return [f"Worse than the start model: {_listed(worse)}."] if worse else []


def _lengths(found: Results) -> list[str]:
    """Name the methods whose wins over the start model may be their length alone."""
    suspicious = [
        row.label
        for row in found.rows
        if (raw := row.win_rate) is not None
        and (equal := row.win_rate_equal_length) is not None
        and (raw.low or 0) > 0.5 >= (equal.low or 0)
        and raw.mean - equal.mean > 0.05
    ]
    if not suspicious:
        return []
    return [f"At equal length {_listed(suspicious)} would not be shown to win against the start model."]


def _what_would_decide(found: Results, start: str) -> list[str]:
    ranking = found.ranking
    rivals = [label for label in ranking.tied[1:] if label != start]
    if not rivals:
        return []
    nearest = max(rivals, key=lambda label: ranking.behind[label].p)
    size = needed(ranking.behind[nearest])
    ways = [f"{size.prompts:,} prompts" if size.prompts else "", f"{size.runs:,} seeds" if size.runs else ""]
    known = " or ".join(way for way in ways if way)
    gap = f"{ranking.order[0]} and {nearest} differ by {ranking.behind[nearest].mean:.3f}"
    if not known:
        return [f"{gap}: more prompts and more seeds together would be needed to tell them apart."]
    return [f"{gap}: about {known} would show a difference of this size four times in five."]


def _gain(row: Row) -> float:
    return row.gain.mean if row.gain is not None else 0.0


def _sure(row: Row) -> bool:
    return row.p_gain is not None and row.p_gain < LEVEL


def _listed(labels: Sequence[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"
