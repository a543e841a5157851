"""UltraFeedback, binarised: conversations that repeat the prompt, with a score for each side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from align.data.formats.base import Format
from align.data.formats.trl import shared_turns

__all__ = ["ULTRAFEEDBACK"]


def _ultrafeedback(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    scores = {"chosen_score": row["score_chosen"], "rejected_score": row["score_rejected"]}
    yield shared_turns(row["chosen"], row["rejected"]) | scores | {"prompt_id": row.get("prompt_id")}


ULTRAFEEDBACK = Format(
    name="ultrafeedback",
    description="chosen, rejected as whole conversations with score_chosen, score_rejected (UltraFeedback binarised)",
    polarity="chosen is the column `chosen`",
    requires=frozenset({"chosen", "rejected", "score_chosen", "score_rejected"}),
    convert=_ultrafeedback,
    optional=frozenset({"prompt", "prompt_id", "messages"}),
)
