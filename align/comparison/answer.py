"""The answer of a comparison in sentences: which method to take, how sure that is, and what would decide it."""

from __future__ import annotations

from collections.abc import Sequence

from align.comparison.differences import LEVEL, needed
from align.comparison.results import Results, Row
from align.evaluation.statistics import FEWEST_RUNS

_MUCH_LESS = 0.5
"""A cost below this share of another is worth a sentence."""
_FAR = 50
"""Times as many prompts or seeds as there are: more is not worth naming."""


def answer(found: Results, *, start: str) -> list[str]:
    """Return the sentences, the answer itself first."""
    ranking = found.ranking
    of = f"on these {found.prompts:,} prompts" + (f" and {len(found.seeds)} seeds" if len(found.seeds) > 1 else "")
    best, tied = ranking.order[0], [label for label in ranking.tied if label != start]
    if best == start or start in ranking.tied:
        first = f"No method is shown to be better than the start model {of}."
        better = [row.label for row in found.rows if row.p_gain is not None and row.p_gain < LEVEL and _gain(row) > 0]
        if better:  # the best score may be of a method whose runs differ much
            verb = "is" if len(better) == 1 else "are"
            first = (
                f"{_listed(better)} {verb} better than the start model {of}; {best}, with the best score, may not be."
            )
    elif len(tied) == 1:
        first = f"Take {best}: it is better than every other method {of}."
    else:
        first = (
            f"{best} has the best score, but {_listed(tied[1:])} cannot be told apart from it {of}: take the "
            "cheapest of them."
        )
    if start in ranking.tied:
        return [first, *_worse(found), *_what_would_decide(found, [best, start])]
    sentences = [first, *_costs(found, tied, start), *_worse(found), *_lengths(found)]
    return sentences + _what_would_decide(found, tied)


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
            [best] = among
            cheaper = [row for row in rows if of(row) < _MUCH_LESS * of(best) and _gain(row) > 0 and _sure(row)]
            if cheaper:
                second = max(cheaper, key=lambda row: row.score.mean)
                sentences.append(
                    f"Where {name} matters: {second.label} took {shown(of(second))} instead of {shown(of(best))}, for "
                    f"a score of {second.score.mean:.3f} instead of {best.score.mean:.3f}."
                )
    return sentences


def _worse(found: Results) -> list[str]:
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


def _what_would_decide(found: Results, tied: Sequence[str]) -> list[str]:
    """Say how large a comparison would tell the best from its nearest rival."""
    best, rivals = found.ranking.order[0], [label for label in tied if label != found.ranking.order[0]]
    if not rivals:
        return []
    nearest = max(rivals, key=lambda label: found.ranking.behind[label].p)
    behind = found.ranking.behind[nearest]
    size = needed(behind)
    ways = [
        f"{count:,} {name}"
        for count, now, name in ((size.prompts, behind.prompts, "prompts"), (size.runs, behind.runs, "seeds"))
        if count is not None and count <= _FAR * now
    ]
    gap = f"{best} and {nearest} differ by {behind.mean:.3f}"
    if not ways and behind.runs in range(2, FEWEST_RUNS):
        return [
            f"{gap} [{behind.low:.3f}, {behind.high:.3f}]; {behind.runs} seeds are too few to say what would decide."
        ]
    if not ways:
        return [f"{gap}: to show a difference of this size would take more than {_FAR} times the prompts or seeds."]
    return [f"{gap}: about {' or '.join(ways)} would show a difference of this size four times in five."]


def _gain(row: Row) -> float:
    return row.gain.mean if row.gain is not None else 0.0


def _sure(row: Row) -> bool:
    return row.p_gain is not None and row.p_gain < LEVEL


def _listed(labels: Sequence[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"
