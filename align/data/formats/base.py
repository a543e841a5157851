"""The class of all formats, and the columns that distinguish them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from align.data.schema import DRAWN_COLUMNS, SCORE_COLUMNS
from align.errors import UserError

__all__ = ["FOREIGN_COLUMNS", "SHARED_COLUMNS", "Format", "Sample", "UnknownFormatError", "shared_fields"]

SHARED_COLUMNS = frozenset({*SCORE_COLUMNS, "prompt_id", "ranking", "tools", "answer", "source", *DRAWN_COLUMNS})
"""Optional columns of the pairwise format that the formats pass on."""

_FOREIGN = """
    annotations annotator better_response_id choice chosen_conversations chosen_response comparison completion_A
    completion_B completions context conversation_a conversation_b conversations history human_ref_A human_ref_B
    input instruction label labels output output_1 output_2 output_A output_B overall_preference preference
    query question rank rejected_conversations rejected_response response response1 response2 response_0
    response_1 responses score_A score_B score_chosen score_rejected scores summaries system winner
"""
FOREIGN_COLUMNS = frozenset(_FOREIGN.split())
"""Columns with a prompt, a response or a label in published formats that are not supported.

Next to one of them a simple format (`prompt` alone, `chosen`/`rejected` alone) would be a guess, so none is recognised;
`data.format=` overrides that.
"""


class UnknownFormatError(UserError):
    """No format fits the columns, or more than one does."""


@dataclass(frozen=True)
class Sample:
    """The first rows of a source, for recognising its format."""

    columns: frozenset[str]
    """The set of columns that most of the rows have."""
    rows: Sequence[Mapping[str, Any]]


def _always(_: Sample) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Format:
    """One format of preference data."""

    name: str
    description: str
    """One line for lists and help texts."""
    polarity: str
    """The side that becomes `chosen`, with the reason."""
    requires: frozenset[str]
    """Columns that every file of this format has."""
    convert: Callable[[Mapping[str, Any]], Iterable[Mapping[str, Any]]]
    """One raw row → fields of the pairwise format for each of its pairs; raises `RowError`."""
    recognises: Callable[[Sample], bool] = _always
    """A further check of rows that have the required columns."""
    optional: frozenset[str] = SHARED_COLUMNS
    """Columns that are read if they exist."""

    @property
    def columns(self) -> frozenset[str]:
        """All columns that are read; others are reported as not read."""
        return self.requires | self.optional

    def fits(self, sample: Sample) -> bool:
        """Return whether the sample has the required columns, no foreign ones, and passes `recognises`."""
        foreign = (sample.columns & FOREIGN_COLUMNS) - self.columns
        return self.requires <= sample.columns and not foreign and self.recognises(sample)


def shared_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the optional columns of the pairwise format that the row has."""
    return {name: row[name] for name in SHARED_COLUMNS if name in row}
