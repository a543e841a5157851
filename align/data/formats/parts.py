"""Parts that several formats share: conversations under other names, prompts of several columns, two responses."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, cast

from align.data.formats.base import shared_fields
from align.data.load_report import LeftOut, RowError
from align.data.messages import kind

__all__ = [
    "CONVERSATIONS",
    "better_of",
    "conversation",
    "instruction",
    "only_one",
    "prompt_with_system",
    "require_answer",
    "require_known",
    "shared_turns",
]

CONVERSATIONS = frozenset({"messages", "conversations"})
"""Columns under which files have a conversation: one of them."""

_OURS = ("user", "assistant", "system")
_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "observation": "tool",
    "function_response": "tool",
    "function": "tool",
}


def conversation(value: object, name: str) -> list[dict[str, Any]]:
    """Return messages, also those of ShareGPT ({from, value}), under the roles of the pairwise format."""
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list):
        raise RowError(f"{name} is not a list of messages", f"is a {kind(value)}")
    return [_turn(item, name) for item in cast(list[Any], value)]


def require_answer(turns: Sequence[Mapping[str, Any]], name: str) -> None:
    """Raise `RowError` unless the last turn is the assistant's."""
    last = turns[-1].get("role") if turns else None
    if last != "assistant":
        raise RowError(f"{name} do not end with an assistant turn", f"the last role is {last!r:.40}" if turns else "")


def _turn(item: Any, name: str) -> dict[str, Any]:
    if type(item) is dict and item.get("role") in _OURS and "content" in item:  # as nearly all are
        return cast(dict[str, Any], item)
    if not isinstance(item, Mapping):
        raise RowError(f"{name} is not a list of messages", f"has a {kind(item)} in it")
    turn = dict(cast(Mapping[str, Any], item))
    for ours, theirs in (("role", "from"), ("content", "value")):
        if ours not in turn and theirs in turn:
            turn[ours] = turn.pop(theirs)
    role = turn.get("role")
    if role == "function_call":
        return {**turn, "role": "assistant", "content": "", "tool_calls": turn.get("content")}
    if isinstance(role, str):
        turn["role"] = _ROLES.get(role, role)
    return turn


def shared_turns(chosen: object, rejected: object) -> dict[str, Any]:
    """Cut two conversations that share all but their last turn into prompt, chosen and rejected."""
    if not isinstance(chosen, list) or not isinstance(rejected, list):
        raise RowError("chosen and rejected are not both text or both messages", f"{kind(chosen)}, {kind(rejected)}")
    first, second = conversation(chosen, "chosen"), conversation(rejected, "rejected")
    for name, turns in (("chosen", first), ("rejected", second)):
        if not turns:
            raise RowError(f"{name} has no message")
    if first[:-1] != second[:-1]:
        raise RowError("prompts differ before the last turn")
    return {"prompt": first[:-1], "chosen": first[-1:], "rejected": second[-1:]}


def only_one(row: Mapping[str, Any], names: Collection[str]) -> str:
    """Return the one of these columns that the row has; raises `RowError` if it is not one."""
    found = sorted(name for name in names if row.get(name) is not None)
    if len(found) != 1:
        raise RowError(
            f"{' and '.join(found)} are both given" if found else f"no {' or '.join(sorted(names))} is given"
        )
    return found[0]


def require_known(messages: object, prompt: object, chosen: object) -> None:
    """Check that the column `messages` repeats the prompt, or the prompt and the chosen answer."""
    if messages and messages not in (prompt, _joined(prompt, chosen)):
        raise RowError("messages are neither the prompt nor the prompt with chosen")


def _joined(prompt: Any, chosen: Any) -> Any:
    return [*prompt, *chosen] if isinstance(prompt, list) and isinstance(chosen, list) else None


def instruction(row: Mapping[str, Any], name: str = "instruction") -> Any:
    """Return the prompt of an instruction with its input, the turns before it (``history``) and the system's turn."""
    parts = [row[name], (row.get("input") or "") if name != "input" else ""]
    for part in parts:
        if not isinstance(part, str):
            raise RowError("instruction or input is not text", f"is a {kind(part)}")
    prompt = "\n".join(filter(None, parts))
    history = row.get("history") or []
    if not history:
        return prompt_with_system(prompt, row.get("system"))
    turns: list[dict[str, Any]] = []
    for exchange in history if isinstance(history, list) else [history]:
        if not isinstance(exchange, Sequence) or isinstance(exchange, str) or len(exchange) != 2:
            raise RowError("history is not a list of questions with answers")
        turns += [{"role": role, "content": text} for role, text in zip(("user", "assistant"), exchange, strict=True)]
    return prompt_with_system([*turns, {"role": "user", "content": prompt}], row.get("system"))


def prompt_with_system(prompt: Any, system: object) -> Any:
    """Return the prompt with a turn of the system before it, if there is one that the prompt does not begin with."""
    if system in (None, ""):
        return prompt
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if not isinstance(turns, list):
        raise RowError("prompt is not text or messages", f"is a {kind(turns)}")
    first = turns[0] if turns and isinstance(turns[0], Mapping) else {}
    if first.get("role") == "system" and first.get("content") == system:
        return turns
    return [{"role": "system", "content": system}, *turns]


def better_of(
    row: Mapping[str, Any], first: Any, second: Any, lead: float, *, prompt: Any, **own: Any
) -> Iterator[dict[str, Any]]:
    """Yield the pair of two responses: the first is chosen if its ``lead`` is positive; raises `LeftOut` for a tie.

    `own`: fields that the format knows, in place of those the row may have.
    """
    if lead == 0:
        raise LeftOut("tie between the responses")
    chosen, rejected = (first, second) if lead > 0 else (second, first)
    yield {**shared_fields(row), **own, "prompt": prompt, "chosen": chosen, "rejected": rejected}
