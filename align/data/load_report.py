"""The report of loading: every rejected row is counted, with its reason and its place."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from align.errors import UserError

__all__ = [
    "EXAMPLES_PER_REASON",
    "UNKNOWN_LABEL",
    "UNKNOWN_LABELS_ALLOWED",
    "LeftOut",
    "LoadReport",
    "RowError",
    "Tally",
    "joined_reports",
    "place_of",
]

EXAMPLES_PER_REASON = 3
UNKNOWN_LABEL = "unknown label"
"""Reason to reject a row whose label says nothing about its answers."""
UNKNOWN_LABELS_ALLOWED = 0.05
"""Fraction of unknown labels above which the known ones may mean something else too: no setting accepts them."""


class RowError(Exception):
    """Raised by a format or a check to reject the row at hand.

    Rejections are counted by `reason`, so there are few of them; `detail` is about this row.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason = reason
        self.detail = detail


class LeftOut(RowError):
    """Raised to leave a row out that is not bad: a tie, or one that is too long."""


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """Counts of rows read, kept, rejected and noted, with the first places."""

    source: str
    rule: str
    """Name of the matching format (in tokenisation: the unit)."""
    polarity: str
    """The side that became `chosen`, with the reason."""
    read: int
    kept: int
    rejected: Mapping[str, int] = field(default_factory=dict[str, int])
    """Rejected rows by reason."""
    left_out: Mapping[str, int] = field(default_factory=dict[str, int])
    """Rows left out that are not bad (ties, too long), by reason."""
    noted: Mapping[str, int] = field(default_factory=dict[str, int])
    """Kept rows with a remark (truncated, both polarities, …), by remark."""
    examples: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """The first places of each reason or remark, each `file:line: reason (detail)`."""
    warnings: tuple[str, ...] = ()

    @property
    def lost(self) -> int:
        """Number of rows that are not kept."""
        return sum(self.rejected.values()) + sum(self.left_out.values())

    def summary(self) -> str:
        """Return the report as text of a few lines."""
        counted = f"{self.kept:,} kept, {sum(self.rejected.values()):,} rejected"
        if self.left_out:
            counted += f", {sum(self.left_out.values()):,} left out"
        lines = [f"{self.source}: {self.read:,} rows read as {self.rule} ({self.polarity}); {counted}"]
        named = (("rejected", self.rejected), ("left out", self.left_out), ("kept, but", self.noted))
        for verb, counts in named:
            for reason, count in sorted(counts.items(), key=lambda item: -item[1]):
                lines += [f"  {verb} {count:,}: {reason}", *(f"    {place}" for place in self.examples[reason])]
        lines += [f"  warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)


def joined_reports(reports: Sequence[LoadReport]) -> LoadReport:
    """Return one report of several sources."""

    def summed(name: str) -> dict[str, int]:
        return dict(sum((Counter(getattr(report, name)) for report in reports), Counter[str]()))

    examples: dict[str, tuple[str, ...]] = {}
    for report in reports:
        for reason, places in report.examples.items():
            examples[reason] = (*examples.get(reason, ()), *places)[:EXAMPLES_PER_REASON]
    return LoadReport(
        source=", ".join(report.source for report in reports),
        rule=" and ".join(dict.fromkeys(report.rule for report in reports)),
        polarity="; ".join(dict.fromkeys(report.polarity for report in reports)),
        read=sum(report.read for report in reports),
        kept=sum(report.kept for report in reports),
        rejected=summed("rejected"),
        left_out=summed("left_out"),
        noted=summed("noted"),
        examples=examples,
        warnings=tuple(dict.fromkeys(warning for report in reports for warning in report.warnings)),
    )


def place_of(example: str, reason: str) -> str:
    """Return the place alone of an example of a reason or remark."""
    return example.split(f": {reason}")[0]


@dataclass
class Tally:
    """A report in the making."""

    source: str
    read: int = 0
    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter[str])
    left_out: Counter[str] = field(default_factory=Counter[str])
    noted: Counter[str] = field(default_factory=Counter[str])
    examples: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    warnings: dict[str, None] = field(default_factory=dict[str, None])

    def reject(self, place: str, rejection: RowError) -> None:
        """Count one rejected row."""
        self.rejected[rejection.reason] += 1
        self._exemplify(rejection.reason, f"{place}: {rejection}")

    def leave_out(self, place: str, reason: LeftOut) -> None:
        """Count one row that is left out without being bad."""
        self.left_out[reason.reason] += 1
        self._exemplify(reason.reason, f"{place}: {reason}")

    def note(self, place: str, remark: str) -> None:
        """Count one kept row with a remark."""
        self.noted[remark] += 1
        self._exemplify(remark, f"{place}: {remark}")

    def warn(self, warning: str) -> None:
        """Add a warning, but only once."""
        self.warnings.setdefault(warning)

    def close(
        self, *, rule: str, polarity: str, max_rejected: float, remedy: str, may_be_empty: bool = False
    ) -> LoadReport:
        """Return the report; raise `UserError` if more than `max_rejected` (a fraction) of the rows is rejected.

        That none is left is an error too, unless it `may_be_empty`, and so are many unknown labels. `remedy` ends the
        sentence of the error, with the fraction that would have been enough if some rows are good and labels known.
        """
        total, too_long = self.rejected.total(), self.left_out.total()
        rows = total + too_long + self.kept
        fraction = total / max(1, rows)
        emptied = not self.kept and not may_be_empty and rows > 0
        unknown = self.rejected[UNKNOWN_LABEL]
        misread = unknown > UNKNOWN_LABELS_ALLOWED * rows
        if fraction > max_rejected or emptied or misread:
            counts = self.rejected + self.left_out if emptied else self.rejected
            reasons = "; ".join(
                f"{count:,} {reason} ({', '.join(self._places(reason))})" for reason, count in counts.most_common()
            )
            most = min(max_rejected, UNKNOWN_LABELS_ALLOWED) if misread else max_rejected
            allowed = "none is left" if emptied else f"{fraction:.1%}, allowed {most:.1%}"
            lost = "rejected or left out" if emptied and self.left_out else "rejected"
            limit = f"{min(1.0, math.ceil(fraction * 1000) / 1000):g}"
            raise UserError(
                f"{self.source}: {counts.total():,} of {rows:,} rows {lost} ({allowed}): {reasons}; "
                + remedy
                + (f", or accept the loss with data.max_rejected={limit}." if self.kept and not unknown else ".")
            )
        return LoadReport(
            source=self.source,
            rule=rule,
            polarity=polarity,
            read=self.read,
            kept=self.kept,
            rejected=dict(self.rejected),
            left_out=dict(self.left_out),
            noted=dict(self.noted),
            examples=dict(self.examples),
            warnings=tuple(self.warnings),
        )

    def _places(self, reason: str) -> list[str]:
        """Return the first places of a reason, those of unknown labels with the label."""
        if reason == UNKNOWN_LABEL:
            return [example.replace(f": {reason} (", ": ").removesuffix(")") for example in self.examples[reason]]
        return [place_of(example, reason) for example in self.examples[reason]]

    def _exemplify(self, reason: str, example: str) -> None:
        known = self.examples.get(reason, ())
        if len(known) < EXAMPLES_PER_REASON:
            self.examples[reason] = (*known, example)
