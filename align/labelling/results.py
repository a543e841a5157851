"""Conclusions from judgements: how two models compare, and how far annotators agree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Any

from align.comparison.differences import difference, needed
from align.evaluation.statistics import Estimate, rate
from align.labelling.session import Session

__all__ = ["Agreement", "Contest", "agreements", "contest", "report"]


@dataclass(frozen=True)
class Contest:
    """The policy against the other run."""

    won: Estimate
    """Share of judgements for the policy; ties, both bad and equal answers count half."""
    more: int | None
    """Further prompts that would tell the two apart if they differ as much as they do so far (power .8); 0 where they
    are told apart, None where they do not differ or nothing can be said yet."""

    def sentence(self, policy: str, against: str) -> str:
        """Say it."""
        said = f"{policy} wins {self.won.percent('judgements')} over {against}"
        if self.more == 0:
            return f"{said}: the two are told apart."
        if self.more is None:
            return f"{said}: no difference yet."
        return f"{said}: about {self.more:,} more would decide if they differ that much."


def contest(session: Session) -> Contest | None:
    """Compare the two models of an arena by all judgements; None where there is none yet.

    Equal answers are ties as soon as a judgement of a pair drawn after them stands. Judgements of one prompt by several
    annotators are one group in the interval, and one value in the number of prompts that would decide.
    """
    by_pair: dict[str, list[float]] = defaultdict(list)
    for judgement in session.judgements:
        if judgement["verdict"] != "skip":
            by_pair[judgement["pair"]].append({0: 1.0, 1: 0.0, None: 0.5}[judgement["preferred"]])
    if not by_pair:
        return None
    reached = max(i for i, pair in enumerate(session.pairs) if pair.key in by_pair)
    by_pair |= {pair.key: [0.5] for pair in session.pairs[:reached] if pair.same}
    outcomes = [outcome for values in by_pair.values() for outcome in values]
    groups = [key for key, values in by_pair.items() for _ in values]
    won = rate(outcomes, groups if len(by_pair) < len(outcomes) else None)
    assert won.low is not None
    assert won.high is not None
    if not won.low <= 0.5 <= won.high:
        return Contest(won, 0)
    means = [sum(values) / len(values) for values in by_pair.values()]
    enough = needed(difference(means, [0.5] * len(means))).prompts if len(means) > 1 and len(set(means)) > 1 else None
    return Contest(won, None if enough is None else max(1, enough - len(means)))


@dataclass(frozen=True)
class Agreement:
    """Of two annotators on the pairs that both judged."""

    first: str
    second: str
    pairs: int
    same: int
    """Pairs with the same verdict."""
    kappa: float | None
    """Cohen's κ (1960): agreement beyond chance, ``(p_o − p_e) / (1 − p_e)``; None where both always say the same."""

    def sentence(self) -> str:
        """Say it."""
        kappa = "κ is not defined, they never differ" if self.kappa is None else f"Cohen's κ = {self.kappa:.2f}"
        return f"{self.first} and {self.second}: the same verdict on {self.same} of {self.pairs} pairs, {kappa}."


def agreements(judgements: Sequence[Mapping[str, Any]]) -> list[Agreement]:
    """Compare each two annotators that judged pairs in common; a verdict is the answer preferred, tie or both bad."""
    from sklearn.metrics import cohen_kappa_score

    verdicts: dict[str, dict[str, str]] = defaultdict(dict)
    for judgement in judgements:
        if (verdict := judgement["verdict"]) != "skip":
            preferred = judgement["preferred"]
            verdicts[judgement["annotator"]][judgement["pair"]] = verdict if preferred is None else str(preferred)
    found: list[Agreement] = []
    for first, second in combinations(sorted(verdicts), 2):
        if both := [pair for pair in verdicts[first] if pair in verdicts[second]]:
            a, b = ([verdicts[name][pair] for pair in both] for name in (first, second))
            same = sum(one == other for one, other in zip(a, b, strict=True))
            kappa = float(cohen_kappa_score(a, b)) if len({*a, *b}) > 1 else None
            found.append(Agreement(first, second, len(both), same, kappa))
    return found


def report(session: Session) -> list[str]:
    """Return sentences on the judgements that stand: of each annotator, on their agreement, and of an arena."""
    lines: list[str] = []
    judgements = session.judgements
    for name in sorted({judgement["annotator"] for judgement in judgements}):
        own = [judgement for judgement in judgements if judgement["annotator"] == name]
        counts = session.counts(own)
        line = (
            f"{name}: {counts['preference']} preferred, {counts['tie']} tied, {counts['bad']} both bad, "
            f"{counts['skip']} skipped; median {median(one['seconds'] for one in own):.1f} s"
        )
        if preferred := [one["verdict"] for one in own if one["preferred"] is not None]:
            line += f"; chose the left side in {rate([float(v == 'left') for v in preferred]).percent('preferences')}"
        lines.append(f"{line}.")
    lines += [agreement.sentence() for agreement in agreements(judgements)]
    if session.arena and (found := contest(session)) is not None:
        lines.append(found.sentence(session.settings["policy"], session.settings["against"]))
    counts = session.counts(judgements)
    rows = counts["preference"] - counts["blank"]
    left_out = f"those tied or both bad, {counts['tie'] + counts['bad']}, are not in it"
    blank = f", nor {counts['blank']} with a blank answer" if counts["blank"] else ""
    lines.append(f"{session.folder / 'labels.jsonl'}: {rows} pairs; {left_out}{blank}.")
    return lines
