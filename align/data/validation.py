"""Checks of one row of the pairwise format."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

from align.data.load_report import RowError
from align.data.schema import ROLES, SCORE_COLUMNS, Message, Row, prompt_key

__all__ = ["kind", "valid_row"]

_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Invisible characters that are neither white space nor control nor format characters."""


def kind(value: object) -> str:
    """Return the type of a raw value as reports name it: text, messages, number, flag, null, list, object …"""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, Mapping):
        return "object"
    if not isinstance(value, Sequence) or isinstance(value, bytes):
        return type(value).__name__
    items = cast(Sequence[object], value)
    return "messages" if all(isinstance(item, Mapping) for item in items) else "list"


def valid_row(fields: Mapping[str, Any], note: Callable[[str], None]) -> Row:
    """Return the row of the pairwise format with these fields, or raise `RowError`.

    `fields` has some of the columns of the pairwise format; prompt and responses are text or messages. `note` is
    called with each remark on a kept row. If the prompt or a response is messages, the others become messages too: a
    text prompt becomes a user turn, a text response an assistant turn.
    """
    prompt = _prompt(fields.get("prompt"), note)
    chosen, rejected = (_response(fields.get(name), name, note) for name in ("chosen", "rejected"))
    _check_responses(chosen, rejected)
    if any(message["role"] for side in (prompt, chosen, rejected) if side for message in side):
        prompt = [Message(role=turn["role"] or "user", content=turn["content"]) for turn in prompt]
        chosen, rejected = (_as_assistant(side) for side in (chosen, rejected))
    scores = {name: _score(fields.get(name), name) for name in SCORE_COLUMNS}
    if (scores["weight"] or 0) < 0:
        raise RowError("negative weight", f"{scores['weight']:g}")
    return Row(
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        chosen_score=scores["chosen_score"],
        rejected_score=scores["rejected_score"],
        margin=scores["margin"],
        weight=scores["weight"],
        prompt_id=_label(fields.get("prompt_id"), "prompt_id") or prompt_key(prompt),
        answer=_label(fields.get("answer"), "answer"),
        source=_label(fields.get("source"), "source"),
        chosen_drawn=_drawn(fields.get("chosen_drawn"), "chosen_drawn"),
        rejected_drawn=_drawn(fields.get("rejected_drawn"), "rejected_drawn"),
        drawn_with=_label(fields.get("drawn_with"), "drawn_with"),
    )


def _prompt(value: object, note: Callable[[str], None]) -> list[Message]:
    if value is None:
        raise RowError("prompt is null")
    messages = _messages(value, "prompt", note)
    if not messages:
        raise RowError("empty prompt")
    if messages[-1]["role"] == "assistant":
        raise RowError("prompt ends with an assistant turn")
    if messages[-1]["role"] not in (None, "user", "tool"):
        raise RowError("prompt does not end with a user turn", f"ends with {messages[-1]['role']}")
    if blank := _blank(messages[-1]["content"]):
        raise RowError(f"{blank} prompt" if blank == "invisible" else "empty prompt")
    for message, following in pairwise(messages):
        if message["role"] in ("user", "assistant"):
            if _blank(message["content"]):
                raise RowError("empty turn in the prompt")
            if message["role"] == following["role"]:
                note("consecutive turns of one role")
    return messages


def _response(value: object, name: str, note: Callable[[str], None]) -> list[Message] | None:
    if value is None:
        return None
    messages = _messages(value, name, note)
    if not messages:
        raise RowError(f"{name} has no message")
    if len(messages) != 1 or messages[0]["role"] not in (None, "assistant"):
        roles = ", ".join(message["role"] or "text" for message in messages[:6])
        raise RowError(f"{name} is not one assistant message", roles)
    return messages


def _check_responses(chosen: list[Message] | None, rejected: list[Message] | None) -> None:
    """Reject blank and identical responses."""
    blank = {
        name: word
        for name, side in (("chosen", chosen), ("rejected", rejected))
        if side and (word := _blank(side[0]["content"]))
    }
    if len(blank) == 2 and len(set(blank.values())) == 1:
        raise RowError(f"{blank['chosen']} chosen and rejected")
    for name, word in blank.items():
        raise RowError(f"{word} {name}")
    if chosen and rejected and chosen[0]["content"] == rejected[0]["content"]:
        raise RowError("identical pair")


def _as_assistant(side: list[Message] | None) -> list[Message] | None:
    return [Message(role="assistant", content=side[0]["content"])] if side else None


def _messages(value: object, name: str, note: Callable[[str], None]) -> list[Message]:
    if isinstance(value, str):
        return [{"role": None, "content": _text(value, name)}]
    if not isinstance(value, Sequence) or isinstance(value, bytes):
        raise RowError(f"{name} is not text or messages", f"is a {kind(value)}")
    return [_message(item, name, note) for item in cast(Sequence[object], value)]


def _message(item: object, name: str, note: Callable[[str], None]) -> Message:
    if not isinstance(item, Mapping):
        raise RowError(f"{name} is not text or messages", f"has a {kind(item)} in its list")
    message = cast(Mapping[str, Any], item)
    role = message.get("role")
    if role not in ROLES:
        raise RowError("unknown role", f"{name}: {role!r:.40}; known are {', '.join(ROLES)}")
    if "content" not in message:
        raise RowError("message without content", name)
    content = message["content"]
    if content is None:
        raise RowError("content is null", name)
    for key, extra in message.items():
        if key not in ("role", "content") and extra not in (None, [], ""):
            note(f'message field "{key}" is not read')
    return {"role": role, "content": _text(_joined(content), name)}


def _joined(content: object) -> object:
    """Return the joined text of a list of text parts, and anything else unchanged."""
    if isinstance(content, str) or not isinstance(content, Sequence):
        return content
    parts = cast(Sequence[Any], content)
    if not all(isinstance(part, Mapping) and part.get("type") == "text" for part in parts):
        return content
    texts = [part.get("text") for part in parts]
    return "".join(texts) if all(isinstance(text, str) for text in texts) else content


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise RowError("content is not text", f"{name}: is a {kind(value)}")
    if "\0" in value:
        raise RowError("NUL character", name)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RowError("lone surrogate", name) from error
    return value


def _blank(text: str) -> str:
    """Return how a text is blank (empty, white-space-only, invisible), or "" if it is not."""
    if not text:
        return "empty"
    if not text.strip():
        return "white-space-only"
    shown = any(
        not character.isspace() and character not in _INVISIBLE and unicodedata.category(character) not in ("Cc", "Cf")
        for character in text
    )
    return "" if shown else "invisible"


def _score(value: object, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RowError(f"{name} is not a number", f"is a {kind(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise RowError(f"{name} is not finite")
    return number


def _drawn(value: object, name: str) -> list[int] | None:
    if value is None:
        return None
    ids = cast(list[Any], value) if isinstance(value, list) else []
    if not ids or not all(type(token) is int and 0 <= token < 2**31 for token in ids):
        raise RowError(f"{name} is not a list of token ids")
    return ids


def _label(value: object, name: str) -> str | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if value is not None and not isinstance(value, str):
        raise RowError(f"{name} is not text", f"is a {kind(value)}")
    return None if value is None else _text(value, name)
