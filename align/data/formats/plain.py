"""The pairwise format itself (with the columns of TRL's explicit preference format), demonstrations and prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from align.data.formats.base import Format, shared_fields
from align.data.load_report import RowError

__all__ = ["DEMONSTRATION", "MESSAGES", "PAIRWISE", "PROMPT", "PROMPT_COMPLETION"]

_NO_PREFERENCE = "no preference: the response is a demonstration"


def _pairwise(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    names = ("prompt", "chosen", "rejected")
    yield {name: row[name] for name in names if name in row} | shared_fields(row)


def _prompt_completion(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"prompt": row["prompt"], "chosen": row["completion"]} | shared_fields(row)


def _messages(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    messages = row["messages"]
    if not isinstance(messages, list):
        raise RowError("messages is not a list of messages")
    turns = cast(list[Any], messages)
    last = turns[-1] if turns else None
    if not isinstance(last, Mapping) or cast(Mapping[str, Any], last).get("role") != "assistant":
        raise RowError("messages do not end with an assistant turn")
    yield {"prompt": turns[:-1], "chosen": turns[-1:]} | shared_fields(row)


PAIRWISE = Format(
    name="pairwise",
    description="prompt, chosen, rejected as text or messages (TRL explicit); null where there is none",
    polarity="chosen is the column `chosen`",
    requires=frozenset({"prompt", "chosen", "rejected"}),
    convert=_pairwise,
)
DEMONSTRATION = Format(
    name="demonstration",
    description="prompt, chosen as text or messages",
    polarity=_NO_PREFERENCE,
    requires=frozenset({"prompt", "chosen"}),
    convert=_pairwise,
)
PROMPT_COMPLETION = Format(
    name="prompt-completion",
    description="prompt, completion as text or messages (TRL)",
    polarity=_NO_PREFERENCE,
    requires=frozenset({"prompt", "completion"}),
    convert=_prompt_completion,
)
MESSAGES = Format(
    name="messages",
    description="messages that end with the assistant's answer",
    polarity=_NO_PREFERENCE,
    requires=frozenset({"messages"}),
    convert=_messages,
)
PROMPT = Format(
    name="prompt",
    description="prompt alone, as text or messages",
    polarity="no preference: prompts only",
    requires=frozenset({"prompt"}),
    convert=_pairwise,
)
