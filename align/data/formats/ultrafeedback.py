"""UltraFeedback, binarised: a score for each side; conversations that repeat the prompt, or texts beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from align.data.formats.base import Format
from align.data.formats.trl import shared_turns

__all__ = ["ULTRAFEEDBACK"]


def _ultrafeedback(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    scores = {"chosen_score": row["score_chosen"], "rejected_score": row["score_rejected"]}
    if row.get("prompt") is not None and isinstance(row["chosen"], str):
        pair = {name: row[name] for name in ("prompt", "chosen", "rejected")}
    else:
        pair = shared_turns(row["chosen"], row["rejected"])
    yield pair | scores | {"prompt_id": row.get("prompt_id")}


ULTRAFEEDBACK = Format(
    name="ultrafeedback",
    description="chosen, rejected (conversations, or texts and prompt), score_chosen, score_rejected (UltraFeedback)",
    polarity="chosen is the column `chosen`",
    requires=frozenset({"chosen", "rejected", "score_chosen", "score_rejected"}),
    convert=_ultrafeedback,
    optional=frozenset({"prompt", "prompt_id", "messages"}),
)
