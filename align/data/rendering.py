"""From messages to the text of a chat template, in which text of users can never pass for a control token.

Text of control tokens inside a message is replaced by a numbered mark before the template sees it, and put back when
the rendered text is encoded (`align.data.encoding`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.data.load_report import RowError
from align.data.schema import CONTINUED
from align.errors import UserError, did_you_mean, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "ANSWER_CHANGED",
    "MARKS",
    "MarkedText",
    "Rendered",
    "TemplateMessage",
    "Turn",
    "any_of",
    "chat_template",
    "render_conversation",
    "render_plain",
    "shared_length",
]

TemplateMessage = Mapping[str, Any]

MARKS = ("\ue000", "\ue001")
"""Characters around the number of a mark."""

ANSWER_CHANGED = "the chat template changes the text of a response"

_TEMPLATES = Path(__file__).parent / "templates"
_PROBE = "align0probe0align"


def chat_template(name_or_path: str | Path) -> str:
    """Return the Jinja text of a bundled chat template ("hh", "chatml") or of a file."""
    bundled = {path.stem: path for path in _TEMPLATES.glob("*.jinja")}
    path = bundled.get(str(name_or_path), Path(name_or_path).expanduser())
    if not path.is_file():
        raise UserError(
            f"model.chat_template={name_or_path}: neither a bundled template ({', '.join(sorted(bundled))}) nor a "
            f"file.{did_you_mean(str(name_or_path), bundled)}"
        )
    return path.read_text(encoding="utf-8").removesuffix("\n")


def with_values(template: object, values: Mapping[str, Any]) -> str:
    """Return a chat template in which variables have these values, wherever it is used.

    Raises:
        UserError: There is no template, or it does not read one of the variables.
    """
    from align.data.template_sandbox import variables

    place = "model.chat_template_kwargs"
    if not isinstance(template, str):
        many = "no chat template" if template is None else "several chat templates"
        raise UserError(f"{place}: the tokenizer has {many}; choose one with model.chat_template.")
    read = variables(template)
    for name in values:
        if name not in read:
            own = read - {"messages", "add_generation_prompt", "bos_token", "eos_token", "raise_exception"}
            raise UserError(
                f"{place}.{name}: the chat template does not read it, but {', '.join(sorted(own)) or 'none at all'}."
                f"{did_you_mean(name, own)}"
            )
    return "".join(f"{{%- set {name} = {value!r} -%}}" for name, value in values.items()) + template


@dataclass(frozen=True)
class MarkedText:
    """Text in which mark i stands for `originals[i]`, to be encoded as text."""

    text: str
    originals: list[str]

    def restored(self, piece: str) -> str:
        """Return a piece of the text with its marks replaced by their originals."""
        return re.sub(f"{MARKS[0]}(\\d+){MARKS[1]}", lambda found: self.originals[int(found[1])], piece)


@dataclass(frozen=True)
class Rendered:
    """A conversation as text."""

    prompt: MarkedText | Sequence[int]
    """The prompt as it is answered, with the generation prompt; or the ids that it is."""
    wholes: list[MarkedText | Sequence[int]] = field(default_factory=list["MarkedText | Sequence[int]"])
    """For each response the prompt with it, up to the end of turn; or the response's ids."""
    apart: list[MarkedText] = field(default_factory=list[MarkedText])
    """Each response alone; only without a chat template."""
    remarks: tuple[str, ...] = ()


def render_conversation(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[TemplateMessage],
    responses: Sequence[TemplateMessage | Sequence[int]],
    *,
    tools: str | None,
    to_mark: re.Pattern[str],
    rest: str,
) -> Rendered:
    """Render messages, and messages with each response, by the chat template.

    Args:
        tokenizer: Has the template.
        messages: Of the prompt.
        responses: Messages, or ids as they were drawn.
        tools: JSON list of the functions that the assistant may call.
        to_mark: Text that is replaced by marks.
        rest: Text that the template writes after the end of the last turn; it is left out.

    Raises:
        RowError: The template refuses the conversation, has no place for a part of it, or renders its messages
            otherwise with an answer.
    """
    marker = _Marker(to_mark)
    functions = None if tools is None else marker.nested(json.loads(tools))
    turns = [_turn(message, message["role"] or "user", marker) for message in messages]
    asked = _render(tokenizer, turns, functions, generation=True)
    _require_place_for_tools(tokenizer, turns, functions, asked)
    prompt = MarkedText(asked, marker.originals)
    wholes: list[MarkedText | Sequence[int]] = []
    remarks: dict[str, None] = {}
    for response in responses:
        if not isinstance(response, Mapping):
            wholes.append(response)
            continue
        own = _Marker(to_mark, list(prompt.originals))
        answer = _turn(response, "assistant", own)
        whole = _render(tokenizer, [*turns, answer], functions, generation=False)
        if not whole.startswith(asked):
            shown = _render(tokenizer, turns, functions, generation=False)
            if shared_length(asked, whole) < shared_length(asked, shown):
                raise RowError("chat template renders the messages of the prompt otherwise before an answer")
        if "thinking" in answer and answer["thinking"].strip() not in whole:
            raise RowError("chat template has no place for the thoughts of an answer")
        _require_place_for_calls(tokenizer, [*turns, answer], functions, whole, first=len(turns))
        if answer["content"].strip() not in whole:
            remarks[ANSWER_CHANGED] = None
        wholes.append(MarkedText(whole.removesuffix(rest), own.originals))
    return Rendered(prompt, wholes, remarks=tuple(remarks))


def _turn(message: TemplateMessage, role: str, marker: _Marker) -> dict[str, Any]:
    """Return a message as chat templates read it, its text marked; thoughts have both of their usual names."""
    turn: dict[str, Any] = {"role": role, "content": marker(message["content"])}
    if thoughts := message.get("thinking"):
        marked = marker(thoughts)
        turn = {"thinking": marked, **turn, "reasoning_content": marked}
    if calls := message.get("tool_calls"):
        turn["tool_calls"] = marker.nested(json.loads(calls))
    return turn | {name: marker(message[name]) for name in ("name", "tool_call_id") if message.get(name)}


def _require_place_for_tools(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[TemplateMessage], functions: Any, asked: str
) -> None:
    """Refuse tools and calls of the prompt that the template leaves out."""
    if functions is not None and _render(tokenizer, turns, None, generation=True) == asked:
        raise RowError("chat template has no place for tools")
    _require_place_for_calls(tokenizer, turns, functions, asked, generation=True)


def _require_place_for_calls(
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[TemplateMessage],
    functions: Any,
    text: str,
    *,
    first: int = 0,
    generation: bool = False,
) -> None:
    """Refuse calls without which the text is the same, in the turns from `first` on."""
    for place, turn in islice(enumerate(turns), first, None):
        calls: Sequence[Any] = turn.get("tool_calls", ())
        for i in range(len(calls)):
            left = {"tool_calls": [*calls[:i], *calls[i + 1 :]]} if len(calls) > 1 else {}
            bare = {name: value for name, value in turn.items() if name != "tool_calls"} | left
            try:
                other = [*turns[:place], bare, *turns[place + 1 :]]
                without = _render(tokenizer, other, functions, generation=generation)
            except RowError:  # a result without its call
                continue
            if without == text:
                raise RowError("chat template has no place for tool calls")


def render_plain(
    messages: Sequence[TemplateMessage],
    responses: Sequence[TemplateMessage | Sequence[int]],
    *,
    tools: str | None,
    to_mark: re.Pattern[str],
) -> Rendered:
    """Render plain text, which has no chat template; otherwise as `render_conversation`.

    Raises:
        UserError: The messages have roles.
        RowError: There are tools, thoughts or calls.
    """
    if len(messages) != 1 or messages[0]["role"] not in (None, CONTINUED):
        raise UserError(
            "the data is conversations, but the tokenizer has no chat template; "
            "choose one with model.chat_template=hh, chatml or a file."
        )
    answers = [response for response in responses if isinstance(response, Mapping)]
    if tools is not None or any(answer.get("thinking") or answer.get("tool_calls") for answer in answers):
        raise RowError("tools and thoughts need a chat template")
    prompt = _Marker(to_mark)
    asked = MarkedText(prompt(messages[0]["content"]), prompt.originals)
    wholes: list[MarkedText | Sequence[int]] = []
    apart: list[MarkedText] = []
    for response in responses:
        text = response["content"] if isinstance(response, Mapping) else ""
        own, alone = _Marker(to_mark, list(prompt.originals)), _Marker(to_mark)
        whole = MarkedText(asked.text + own(text), own.originals)
        wholes.append(whole if isinstance(response, Mapping) else response)
        apart.append(MarkedText(alone(text), alone.originals))
    return Rendered(asked, wholes, apart)


@dataclass(frozen=True)
class Turn:
    """Text that a chat template writes around the content of the last assistant's turn."""

    tail: str = ""
    """Text that follows the content."""
    structure: str = ""
    """All text that the template adds to a short conversation."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Turn:
        """Render a probe, with a system turn where the template asks for one."""
        question, answer = ({"role": role, "content": _PROBE} for role in ("user", "assistant"))
        for first in ([question], [{**question, "role": "system"}, question]):
            try:
                prompt = _render(tokenizer, first, generation=True)
                whole = _render(tokenizer, [*first, answer], generation=False)
            except RowError:
                continue
            _, found, tail = whole.rpartition(_PROBE)
            return cls(tail, prompt + tail) if found else cls(structure=prompt)
        return cls()


def shared_length(first: Sequence[object], second: Sequence[object]) -> int:
    """Return the length of the common beginning."""
    if second[: len(first)] == first:
        return len(first)
    differ = (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    return next(differ, min(len(first), len(second)))


def any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern with one group that matches any of `texts`, longest first; with no texts it never matches."""
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})")


class _Marker:
    """Replaces what its pattern finds by numbered marks."""

    def __init__(self, pattern: re.Pattern[str], originals: list[str] | None = None) -> None:
        self.pattern = pattern
        self.originals: list[str] = originals if originals is not None else []

    def __call__(self, text: str) -> str:
        return self.pattern.sub(self._number, text)

    def nested(self, value: Any) -> Any:
        """Mark all texts of a JSON value, names of fields included."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, dict):
            return {self(str(name)): self.nested(item) for name, item in value.items()}
        return [self.nested(item) for item in value] if isinstance(value, list) else value

    def _number(self, found: re.Match[str]) -> str:
        self.originals.append(found[0])
        return f"{MARKS[0]}{len(self.originals) - 1}{MARKS[1]}"


def _render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[TemplateMessage],
    tools: Any = None,
    *,
    generation: bool,
) -> str:
    """Return the text of messages, with or without the generation prompt, as `apply_chat_template` renders it.

    That method rebuilds all messages from plain JSON types, which ours are, and this takes longer than the rendering.

    Raises:
        RowError: The template refuses them, or fails on them with an error of its own.
        UserError: It does not end, or writes without end.
    """
    from jinja2 import TemplateError

    from align.data.template_sandbox import render

    try:
        if _renders_itself(type(tokenizer)):
            return str(
                tokenizer.apply_chat_template(
                    [dict(message) for message in messages],
                    tools=tools,
                    tokenize=False,
                    add_generation_prompt=generation,
                )
            )
        return render(
            tokenizer.get_chat_template(tools=tools),
            messages=messages,
            tools=tools,
            documents=None,
            add_generation_prompt=generation,
            **tokenizer.special_tokens_map,
        )
    except TemplateError as error:
        raise RowError("chat template refuses the conversation", str(error)) from error
    except UserError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # An expression of the template failed, as Python names it.
        detail = f"{type(error).__name__}: {first_line(error)}"
        raise RowError("chat template fails on the conversation", detail) from error


@cache
def _renders_itself(kind: type[PreTrainedTokenizerBase]) -> bool:
    """Return whether a tokenizer, whose code may come with its model, has a method of its own for conversations."""
    from transformers import PreTrainedTokenizerBase

    return kind.apply_chat_template is not PreTrainedTokenizerBase.apply_chat_template
