"""TRL's implicit-prompt preference format: `chosen` and `rejected` that begin with the same prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from align.data.formats.base import SHARED_COLUMNS, Format, Sample, shared_fields
from align.data.formats.hh import HH
from align.data.formats.parts import require_known, shared_turns
from align.data.formats.turn_marks import answer_start, next_turn
from align.data.load_report import RowError
from align.data.rendering import shared_length

__all__ = ["IMPLICIT", "cut_at"]


def _implicit(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    chosen, rejected = row["chosen"], row["rejected"]
    if isinstance(chosen, str) and isinstance(rejected, str):
        fields = _shared_transcript(chosen, rejected)
    else:
        fields = shared_turns(chosen, rejected)
        require_known(row.get("messages"), fields["prompt"], fields["chosen"])
    yield fields | shared_fields(row)


def _shared_transcript(chosen: str, rejected: str) -> dict[str, str]:
    """Cut two transcripts behind the last mark of an assistant that both share, never inside an answer.

    Line breaks behind the mark belong to the prompt; a space belongs to the answer ("Assistant:| blue"), as in
    tokenizers.
    """
    if chosen == rejected:
        raise RowError("identical pair")
    end = shared_length(chosen, rejected)
    if end == min(len(chosen), len(rejected)):
        raise RowError("one answer continues the other, so the end of the prompt cannot be seen: give it in a column")
    start = answer_start(chosen[:end])
    if start is None:
        marked = answer_start(chosen) is not None and answer_start(rejected) is not None
        raise RowError("prompts differ before the last turn" if marked else "no turn of an assistant is marked")
    return cut_at(start, chosen=chosen, rejected=rejected)


def cut_at(start: int, **sides: str) -> dict[str, str]:
    """Cut transcripts behind a mark of the assistant that all share, or one alone."""
    first, *others = sides.values()
    while (
        start < len(first)
        and first[start].isspace()
        and all(other[start : start + 1] == first[start] for other in others)
    ):
        start += 1
    if first[start - 1] == " ":
        start -= 1
    prompt = first[:start]
    cut = {name: text[start:] for name, text in sides.items()}
    if any(next_turn(prompt, answer) for answer in cut.values()):
        raise RowError("prompts differ before the last turn")
    return {"prompt": prompt, **cut}


def _recognises(sample: Sample) -> bool:
    """Return whether most rows are conversations or transcripts that hold their prompt, but not those of HH-RLHF."""
    if "prompt" in sample.columns or HH.recognises(sample):
        return False
    sides = [row.get(name) for row in sample.rows for name in ("chosen", "rejected")]
    return 2 * sum(_holds_prompt(side) for side in sides) > len(sides)


def _holds_prompt(side: object) -> bool:
    if isinstance(side, str):
        return answer_start(side) is not None
    return isinstance(side, list) and len(cast(list[Any], side)) > 1


IMPLICIT = Format(
    name="trl-implicit",
    description="chosen, rejected as messages or transcripts that begin with the same prompt (TRL implicit)",
    polarity="chosen is the column `chosen`",
    requires=frozenset({"chosen", "rejected"}),
    convert=_implicit,
    recognises=_recognises,
    optional=SHARED_COLUMNS | {"messages"},
)
