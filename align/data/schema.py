"""The pairwise format, in which all data is kept, whatever file it came from.

A row is one prompt with a preferred (`chosen`) and a less preferred (`rejected`) response. `rejected` is null in a
demonstration; both are null in a bare prompt. A ranking of K responses is stored as pairs with one `prompt_id`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

__all__ = [
    "COLUMNS",
    "DRAWN_COLUMNS",
    "ROLES",
    "SCORE_COLUMNS",
    "Example",
    "Message",
    "Row",
    "Unit",
    "arrow_schema",
    "prompt_key",
]

Unit = Literal["demonstration", "pair", "ranking", "prompt"]
"""Responses per example that a method needs: K=1 (chosen), K=2, any K ≥ 2 with one prompt_id, or K=0."""

ROLES = ("system", "developer", "user", "assistant", "tool")
"""Roles of messages; plain text is one message whose role is null."""

SCORE_COLUMNS = ("chosen_score", "rejected_score", "margin", "weight")
DRAWN_COLUMNS = ("chosen_drawn", "rejected_drawn", "drawn_with")
"""Token ids that a response was drawn as, and the fingerprint of the tokenizer that they belong to."""

COLUMNS = ("prompt", "chosen", "rejected", *SCORE_COLUMNS, "prompt_id", "answer", "source", *DRAWN_COLUMNS)
"""The columns of the pairwise format, in order."""


class Message(TypedDict):
    """One turn of a conversation, or (role null) a plain text."""

    role: str | None
    content: str


class Row(TypedDict):
    """One valid row; responses are lists of exactly one message."""

    prompt: list[Message]
    chosen: list[Message] | None
    rejected: list[Message] | None
    chosen_score: float | None
    rejected_score: float | None
    margin: float | None
    weight: float | None
    prompt_id: str
    answer: str | None
    source: str | None
    chosen_drawn: list[int] | None
    rejected_drawn: list[int] | None
    drawn_with: str | None


@dataclass(frozen=True, kw_only=True)
class Example:
    """One prompt with its K tokenised responses, best first (of a pair: chosen 0, rejected 1)."""

    prompt_ids: list[int]
    responses: list[list[int]]
    """Token ids per response; the last is the end-of-turn token unless the response was truncated."""
    scores: list[float | None]
    """One per response, None if the data has none."""
    comparisons: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """Indices (better, worse) of compared responses; (0, 1) for a pair."""
    margin: float | None = None
    weight: float = 1.0
    prompt_id: str = ""
    index: int = 0
    """Row of the dataset that the example came from (the first row of a ranking)."""
    answer: str | None = None
    source: str | None = None


def prompt_key(prompt: Sequence[Mapping[str, Any]]) -> str:
    """Return a hash of a prompt's roles and contents, 16 hex digits, the same in every process."""
    parts = [[message["role"], message["content"]] for message in prompt]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def arrow_schema() -> Any:
    """Return the `pyarrow.Schema` of a `Preferences` dataset: `COLUMNS`, then `place` (file:line of the row)."""
    import pyarrow as pa

    messages = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    types = {name: pa.float64() for name in SCORE_COLUMNS} | dict.fromkeys(("prompt", "chosen", "rejected"), messages)
    types |= dict.fromkeys(("chosen_drawn", "rejected_drawn"), pa.list_(pa.int32()))
    return pa.schema([(name, types.get(name, pa.string())) for name in (*COLUMNS, "place")])
