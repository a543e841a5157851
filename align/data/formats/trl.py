"""TRL's implicit-prompt preference format: `chosen` and `rejected` that begin with the same prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from align.data.formats.base import Format, Sample, shared_fields
from align.data.formats.hh import HH
from align.data.load_report import RowError
from align.data.validation import kind

__all__ = ["IMPLICIT", "shared_turns", "shared_words"]


def shared_words(first: str, second: str) -> int:
    """Return the end of the common beginning of two texts, never inside a word.

    A space before the first differing word belongs to the word ("The sky is| blue"), as in tokenizers; line breaks
    belong to the beginning.
    """
    differ = (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    end = next(differ, min(len(first), len(second)))
    if any(end < len(text) and not text[end].isspace() for text in (first, second)):
        while end and not first[end - 1].isspace():
            end -= 1
    return end - 1 if end and first[end - 1] == " " else end


def _implicit(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    chosen, rejected = row["chosen"], row["rejected"]
    if isinstance(chosen, str) and isinstance(rejected, str):
        if chosen == rejected:
            raise RowError("identical pair")
        end = shared_words(chosen, rejected)
        fields = {"prompt": chosen[:end], "chosen": chosen[end:], "rejected": rejected[end:]}
    else:
        fields = shared_turns(chosen, rejected)
    yield fields | shared_fields(row)


def shared_turns(chosen: object, rejected: object) -> dict[str, Any]:
    """Cut two conversations that share all but their last turn into prompt, chosen and rejected."""
    if not isinstance(chosen, list) or not isinstance(rejected, list):
        raise RowError("chosen and rejected are not both text or both messages", f"{kind(chosen)}, {kind(rejected)}")
    first, second = cast(list[Any], chosen), cast(list[Any], rejected)
    for name, turns in (("chosen", first), ("rejected", second)):
        if not turns:
            raise RowError(f"{name} has no message")
    if first[:-1] != second[:-1]:
        raise RowError("prompts differ before the last turn")
    return {"prompt": first[:-1], "chosen": first[-1:], "rejected": second[-1:]}


def _recognises(sample: Sample) -> bool:
    """Return whether the rows contain their prompt, but are not HH-RLHF transcripts."""
    return not {"prompt", "messages"} & sample.columns and not HH.recognises(sample)


IMPLICIT = Format(
    name="trl-implicit",
    description="chosen, rejected as text or messages that begin with the same prompt (TRL implicit)",
    polarity="chosen is the column `chosen`",
    requires=frozenset({"chosen", "rejected"}),
    convert=_implicit,
    recognises=_recognises,
)
