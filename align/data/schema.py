"""The pairwise format, in which all data is kept, whatever file it came from.

A row is one prompt with a preferred (`chosen`) and a less preferred (`rejected`) response. `rejected` is null in a
demonstration, `chosen` is null in an answer that is only known to be bad, both are null in a bare prompt. A ranking of
K responses is stored as pairs that hold it, with one `prompt_id` and one `ranking`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NotRequired, TypedDict

__all__ = [
    "COLUMNS",
    "CONTINUED",
    "DRAWN_COLUMNS",
    "ROLES",
    "SCORE_COLUMNS",
    "TOKENS",
    "Example",
    "Message",
    "Row",
    "Unit",
    "answer_key",
    "arrow_schema",
    "present",
    "prompt_key",
    "question_key",
    "token_ids",
    "token_message",
]

Unit = Literal["demonstration", "pair", "ranking", "prompt", "judgement"]
"""Responses per example that a method needs: K=1 (chosen), K=2, any K ≥ 2 with one prompt_id, K=0, K=1 or 2.

The last is a judgement: it has the good answer, the bad one or both, each of which counts for itself.
"""

ROLES = ("system", "developer", "user", "assistant", "tool")
"""Roles of messages; plain text is one message whose role is null."""

CONTINUED = "text"
"""Role of the only message of a prompt that is no question but the (often empty) beginning of a text, without turns."""

TOKENS = "tokens"
"""Role of a prompt's or response's only message that is token ids, written as numbers with blanks between them."""

SCORE_COLUMNS = ("chosen_score", "rejected_score", "margin", "weight")
DRAWN_COLUMNS = ("chosen_drawn", "rejected_drawn", "drawn_with")
"""Token ids that a response was drawn as, and the fingerprint of the tokenizer that they belong to."""

COLUMNS = (
    *("prompt", "chosen", "rejected", *SCORE_COLUMNS, "prompt_id", "ranking", "tools", "answer", "source"),
    *DRAWN_COLUMNS,
)
"""The columns of the pairwise format, in order."""

MESSAGE_FIELDS = ("thinking", "tool_calls", "name", "tool_call_id", "weight")
"""Fields that a message may have beside role and content."""


_ENCODER = json.JSONEncoder(check_circular=False)


class Message(TypedDict):
    """One turn of a conversation, or (role null) a plain text."""

    role: str | None
    content: str
    thinking: NotRequired[str | None]
    """Reasoning of an assistant that is kept apart from its answer."""
    tool_calls: NotRequired[str | None]
    """JSON list of ``{"type": "function", "function": {"name": …, "arguments": {…}}}``, maybe with ``id``."""
    name: NotRequired[str | None]
    """Of a tool's turn: the tool that answers."""
    tool_call_id: NotRequired[str | None]
    """Of a tool's turn: the call that it answers."""
    weight: NotRequired[str | None]
    """"0" of an earlier answer that is not trained on, also where ``data.train_on`` is all; not in a prompt's key."""


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
    ranking: str | None
    """Key of the ranking that the pair is part of; null for a pair of its own."""
    tools: str | None
    """JSON list of the functions that the assistant may call, as chat templates take them."""
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
    good: list[bool] = field(default_factory=list[bool])
    """Of a judgement: whether each response is known to be good, else it is known to be bad."""
    margin: float | None = None
    weight: float = 1.0
    prompt_id: str = ""
    index: int = 0
    """Row of the dataset that the example came from (the first row of a ranking)."""
    answer: str | None = None
    source: str | None = None


def present(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the message without the fields that it does not have; Arrow gives every message all of them."""
    kept = {name: message[name] for name in MESSAGE_FIELDS if message.get(name) is not None} if len(message) > 2 else {}
    return {"role": message["role"], "content": message["content"], **kept}


def answer_key(message: Mapping[str, Any]) -> str:
    """Return what tells one answer from another: its text, with thoughts and calls where it has them."""
    extra = [message[name] for name in MESSAGE_FIELDS if message.get(name) is not None] if len(message) > 2 else []
    return json.dumps([message["content"], *extra]) if extra else str(message["content"])


def token_message(ids: Sequence[int]) -> Message:
    """Return ids as the message of a prompt or response that is tokens already."""
    return {"role": TOKENS, "content": " ".join(map(str, ids))}


def token_ids(message: Mapping[str, Any]) -> list[int]:
    """Return the ids of such a message."""
    return [int(token) for token in message["content"].split()]


def prompt_key(prompt: Sequence[Mapping[str, Any]], tools: str | None = None) -> str:
    """Return a hash of a prompt's messages and tools, 16 hex digits, the same in every process."""
    parts: list[Any] = [
        (turn["role"], turn["content"]) if len(turn) == 2 else tuple(present({**turn, "weight": None}).values())
        for turn in prompt
    ]
    if tools is not None:
        parts.append(tools)
    return hashlib.sha256(_ENCODER.encode(parts).encode()).hexdigest()[:16]


def question_key(prompt: Sequence[Mapping[str, Any]], prompt_id: str) -> str:
    """Return what tells one question from another: the prompt's key; of a text without a prompt its ``prompt_id``."""
    return prompt_id if prompt[0]["role"] == CONTINUED else prompt_key(prompt)


def arrow_schema() -> Any:
    """Return the `pyarrow.Schema` of a `Preferences` dataset: `COLUMNS`, then `place` (file:line of the row)."""
    import pyarrow as pa

    messages = pa.list_(pa.struct([(name, pa.string()) for name in ("role", "content", *MESSAGE_FIELDS)]))
    types = {name: pa.float64() for name in SCORE_COLUMNS} | dict.fromkeys(("prompt", "chosen", "rejected"), messages)
    types |= dict.fromkeys(("chosen_drawn", "rejected_drawn"), pa.list_(pa.int32()))
    return pa.schema([(name, types.get(name, pa.string())) for name in (*COLUMNS, "place")])
