"""Checks of messages: roles, texts, thoughts, tools and their calls."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, cast

from align.data.load_report import RowError
from align.data.marks import is_learned, is_mark, require_learned, require_no_part
from align.data.schema import CONTINUED, ROLES, TOKENS, Message

__all__ = ["MEDIA", "kind", "number", "read_messages", "read_text", "read_tools"]

MEDIA = ("image", "image_url", "images", "video", "videos", "audio", "audios", "input_audio")
"""Columns and parts of a message that hold no text."""

_THINKING = ("thinking", "reasoning_content", "reasoning")
"""Names under which datasets have an assistant's thoughts."""
_READ = {
    "assistant": frozenset({"role", "content", "tool_calls", *_THINKING}),
    "tool": frozenset({"role", "content", "name", "tool_call_id"}),
}
_PLAIN_ROLES = ("user", "assistant", "system")
_NOTHING: tuple[Any, ...] = (None, [], "", {})
_IDS = re.compile(r"\d{1,10}(?: \d{1,10})*", re.ASCII)
_PARTS = (("role", "content"), ("from", "value"))
_WRITTEN = re.compile(r"""\s*(\[\s*)?\{\s*['"](role|content|from|value)['"]\s*:""")
"""Beginning of messages, or of one message, that were written as text, by `json.dumps` or `str`."""


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


def read_messages(value: object, name: str, note: Callable[[str], None]) -> list[Message]:
    """Return the messages of column ``name``, text as one without a role; raises `RowError`.

    ``note`` is called with remarks on what is not read.
    """
    if isinstance(value, str):
        if _is_written(value):
            raise RowError(f"{name} is messages that were written as text", "give the list itself")
        return [{"role": None, "content": read_text(value, name)}]
    if type(value) is not list and (not isinstance(value, Sequence) or isinstance(value, bytes)):
        raise RowError(f"{name} is not text or messages", f"is a {kind(value)}")
    match value:
        case [{"role": None, "content": text, **more}] if not more:  # as text is kept
            return [{"role": None, "content": read_text(text, name)}]
        case _:
            return [_message(item, name, note) for item in cast(Sequence[object], value)]


def _is_written(text: str) -> bool:
    """Return whether a text is messages, or one: an object with a role and a content, which few answers in JSON are."""
    begins = _WRITTEN.match(text)
    if begins is None or begins[1]:
        return begins is not None
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return isinstance(found, Mapping) and any({*names} <= found.keys() for names in _PARTS)
    return False


def _message(item: object, name: str, note: Callable[[str], None]) -> Message:
    if type(item) is not dict and not isinstance(item, Mapping):
        raise RowError(f"{name} is not text or messages", f"has a {kind(item)} in its list")
    message = cast(Mapping[str, Any], item)
    role, content = message.get("role"), message.get("content")
    if len(message) == 2 and type(content) is str and role in _PLAIN_ROLES:  # as nearly all are
        return {"role": role, "content": content if _is_plain(content) else read_text(content, name)}
    if role not in (*ROLES, CONTINUED, TOKENS):
        raise RowError("unknown role", f"{name}: {role!r:.40}; known are {', '.join(ROLES)}")
    calls = _calls(message.get("tool_calls"), name) if role == "assistant" else None
    if "content" not in message and calls is None:
        raise RowError("message without content", name)
    if content is None and calls is None:
        raise RowError("content is null", name)
    read: Message = {"role": role, "content": read_text(_joined(content, name), name) if content is not None else ""}
    if calls is not None:
        read["tool_calls"] = calls
    if role == "assistant" and (thoughts := [message[key] for key in _THINKING if message.get(key)]):
        read["thinking"] = read_text(thoughts[0], name)
    if role == TOKENS and not _IDS.fullmatch(read["content"]):
        raise RowError(f"{name} is not a list of token ids")
    for key in ("name", "tool_call_id"):
        if role == "tool" and message.get(key):
            read[key] = read_text(message[key], name)
    if role == "assistant" and name != "prompt":
        require_learned(message)
    elif role == "assistant" and not is_learned(message):
        read["weight"] = "0"
    if role in ("user", "system"):
        require_no_part(message, f"a {role}'s message")
    for key, extra in message.items():
        if not is_mark(key) and key not in _READ.get(role, ("role", "content")) and extra not in _NOTHING:
            note(f'message field "{key}" is not read')
    return read


def _calls(value: object, name: str) -> str | None:
    """Return the calls of a message as JSON, in the one shape of :class:`align.data.schema.Message`."""
    if value in _NOTHING:
        return None
    calls: list[dict[str, Any]] = []
    for call in _listed(value, f"{name}: tool_calls"):
        function = call.get("function", call)
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise RowError("tool call without a function's name", name)
        arguments = _parsed(function.get("arguments") or {}, f"{name}: arguments of a tool call")
        if not isinstance(arguments, Mapping):
            raise RowError("arguments of a tool call are not an object", name)
        made: dict[str, Any] = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
        calls.append({**made, "id": call["id"]} if call.get("id") else made)
    return _json(calls, name)


def read_tools(value: object) -> str | None:
    """Return the functions that an assistant may call as JSON."""
    if value in _NOTHING:
        return None
    tools = _listed(value, "tools")
    for tool in tools:
        function = tool.get("function", tool)
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise RowError("tool without a function's name", "tools")
    return _json(tools, "tools")


def _listed(value: object, name: str) -> list[Mapping[str, Any]]:
    found = _parsed(value, name)
    items = cast(list[Any], found) if isinstance(found, list) else [found]
    if not all(isinstance(item, Mapping) for item in items):
        raise RowError(f"{name.rpartition(': ')[2]} is not a list of objects", name)
    return items


def _parsed(value: object, name: str) -> Any:
    """Return the value, or what its text is as JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise RowError(f"{name.rpartition(': ')[2]} is not JSON", name) from error


def _json(value: object, name: str) -> str:
    return read_text(json.dumps(_without_nulls(value), ensure_ascii=False), name)


def _without_nulls(value: Any) -> Any:
    """Leave null fields out: Arrow gives every object the fields of all others."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _joined(content: object, name: str) -> object:
    """Return the joined text of a list of text parts, and anything else unchanged."""
    if isinstance(content, str) or not isinstance(content, Sequence):
        return content
    parts = cast(Sequence[Any], content)
    if media := [part["type"] for part in parts if isinstance(part, Mapping) and part.get("type") in MEDIA]:
        raise RowError("images, video and sound cannot be read", f"{name}: {media[0]}")
    if not all(isinstance(part, Mapping) and part.get("type") == "text" for part in parts):
        return content
    texts = [part.get("text") for part in parts]
    return "".join(texts) if all(isinstance(text, str) for text in texts) else content


def number(value: object, name: str) -> float:
    """Return a finite number, also one that is written as text, as in CSV; raises `RowError`."""
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
            raise ValueError
        found = float(value)
    except OverflowError:
        found = math.inf
    except ValueError as error:
        shown = json.dumps(value, default=str, ensure_ascii=False)
        raise RowError(f"{name} is not a number", f"is {shown[:40]}") from error
    if not math.isfinite(found):
        raise RowError(f"{name} is not finite")
    return found


def _is_plain(text: str) -> bool:
    return text.isascii() and "\0" not in text


def read_text(value: object, name: str) -> str:
    """Return the value if it is text that can be encoded; raises `RowError`."""
    if not isinstance(value, str):
        raise RowError("content is not text", f"{name}: is a {kind(value)}")
    if _is_plain(value):
        return value
    if "\0" in value:
        raise RowError("NUL character", name)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RowError("lone surrogate", name) from error
    return value
