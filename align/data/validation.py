"""Checks of one row of the pairwise format."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, cast

from align.data.load_report import RowError
from align.data.marks import require_agreeing, require_good
from align.data.messages import kind, number, read_messages, read_text, read_tools
from align.data.schema import COLUMNS, CONTINUED, SCORE_COLUMNS, TOKENS, Message, Row, answer_key, prompt_key

__all__ = ["BOTH_POLARITIES", "LOWER_SCORE", "NEGATIVE_MARGIN", "REPEATED", "valid_row"]

BOTH_POLARITIES = "pair also occurs with the other polarity"
LOWER_SCORE = "chosen has a lower score than rejected"
NEGATIVE_MARGIN = "the margin is negative"
REPEATED = "chosen and rejected begin with the prompt"
"""Remarks that show a wrong reading where most pairs have them."""

_NO_VALUE = frozenset({"null", "nan", "none", "n/a", "na", "<na>", "#n/a", "nil"})
_ENDS = ("</s>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>", "<|end|>", "<end_of_turn>", "<eos>")
"""Marks that chat templates and tokenizers put behind an answer."""
_HEAVIEST = 1e6  # a weight beyond it is a slip, and sums of such lose the others
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Invisible characters that are neither white space nor control nor format characters."""


def valid_row(fields: Mapping[str, Any], note: Callable[[str], None]) -> Row:
    """Return the row of the pairwise format with these fields, or raise `RowError`.

    `fields` has some of the columns of the pairwise format; prompt and responses are text or messages. `note` is
    called with each remark on a kept row. If the prompt or a response is messages, the others become messages too: a
    text prompt becomes a user turn, a text response an assistant turn.
    """
    prompt = _prompt(fields.get("prompt"), note)
    chosen = _response(fields.get("chosen"), "chosen", note)
    rejected = _response(fields.get("rejected"), "rejected", note)
    _check_responses(chosen, rejected)
    if rejected is None and chosen and not isinstance(fields["chosen"], str):
        require_good(fields["chosen"][0])
    good, bad = fields.get("chosen"), fields.get("rejected")
    if type(good) is list and type(bad) is list:
        require_agreeing(cast(Any, good[0]), cast(Any, bad[0]))
    if prompt[0]["role"] != TOKENS and any(side and side[0]["role"] == TOKENS for side in (chosen, rejected)):
        raise RowError("the response is token ids, but the prompt is text")
    for side in (chosen, rejected):
        if side:
            _note_text(side[0]["content"], note)
    asked = prompt[-1]["content"]
    if chosen and rejected and chosen[0]["content"].startswith(asked) and rejected[0]["content"].startswith(asked):
        note(REPEATED)
    roles = {message["role"] for message in (*prompt, *(chosen or ()), *(rejected or ()))}
    if None in roles and len(roles) > 1:
        prompt = [_as_role(turn, "user") for turn in prompt]
        chosen, rejected = ([_as_role(side[0], "assistant")] if side else None for side in (chosen, rejected))
    row = cast(Row, {**_BLANK, "prompt": prompt, "chosen": chosen, "rejected": rejected})
    for name, read in _READERS.items():
        if (value := fields.get(name)) is not None:
            row[name] = read(value, name)
    high, low = row["chosen_score"], row["rejected_score"]
    if high is not None and low is not None and high < low:
        note(LOWER_SCORE)
    if (row["margin"] or 0) < 0:
        note(NEGATIVE_MARGIN)
    row["prompt_id"] = row["prompt_id"] or prompt_key(prompt, row["tools"])
    return row


def is_response(text: str) -> bool:
    """Whether the format takes a text as a response: it has a visible character and no NUL."""
    try:
        valid_row({"prompt": "?", "chosen": text}, lambda _: None)
    except RowError:
        return False
    return True


def _prompt(value: object, note: Callable[[str], None]) -> list[Message]:
    if value is None:
        raise RowError("prompt is null")
    messages = read_messages(value, "prompt", note)
    if not messages:
        raise RowError("empty prompt")
    if any(message["role"] in (CONTINUED, TOKENS) for message in messages):
        if len(messages) > 1:
            raise RowError("a text to continue, or token ids, are the only message of a prompt")
        return messages
    if messages[-1]["role"] == "assistant":
        raise RowError("prompt ends with an assistant turn")
    if messages[-1]["role"] not in (None, "user", "tool"):
        raise RowError("prompt does not end with a user turn", f"ends with {messages[-1]['role']}")
    if messages[-1]["role"] != "tool" and (blank := _blank(messages[-1]["content"])):
        raise RowError(f"{blank} prompt" if blank == "invisible" else "empty prompt")
    for message, following in pairwise(messages):
        if message["role"] in ("user", "assistant"):
            if _blank(message["content"]) and not message.get("tool_calls"):
                raise RowError("empty turn in the prompt")
            if message["role"] == following["role"]:
                note("consecutive turns of one role")
    return messages


def _response(value: object, name: str, note: Callable[[str], None]) -> list[Message] | None:
    if value is None:
        return None
    messages = read_messages(value, name, note)
    if not messages:
        raise RowError(f"{name} has no message")
    if len(messages) != 1 or messages[0]["role"] not in (None, "assistant", TOKENS):
        roles = ", ".join(message["role"] or "text" for message in messages[:6])
        raise RowError(f"{name} is not one assistant message", roles)
    return messages


def _check_responses(chosen: list[Message] | None, rejected: list[Message] | None) -> None:
    """Reject blank and identical responses."""
    blanks = [
        _blank(side[0]["content"]) if side and not side[0].get("tool_calls") else "" for side in (chosen, rejected)
    ]
    if blanks[0] and blanks[0] == blanks[1]:
        raise RowError(f"{blanks[0]} chosen and rejected")
    for name, word in zip(("chosen", "rejected"), blanks, strict=True):
        if word:
            raise RowError(f"{word} {name}")
    if chosen and rejected and answer_key(chosen[0]) == answer_key(rejected[0]):
        raise RowError("identical pair")


def _note_text(answer: str, note: Callable[[str], None]) -> None:
    if len(answer) < 9 and answer.strip().lower() in _NO_VALUE:
        note("an answer is a word such as NULL or NaN, as tables write a missing value")
    if answer.rstrip().endswith(_ENDS):
        note("answers end in the marks of a chat template, which are trained as text")


def _as_role(message: Message, role: str) -> Message:
    return {**message, "role": message["role"] or role}


def _blank(text: str) -> str:
    """Return how a text is blank (empty, white-space-only, invisible), or "" if it is not."""
    if text[:1].isascii() and text[:1].isalnum():
        return ""
    if not text:
        return "empty"
    if not text.strip():
        return "white-space-only"
    shown = any(
        not character.isspace() and character not in _INVISIBLE and unicodedata.category(character) not in ("Cc", "Cf")
        for character in text
    )
    return "" if shown else "invisible"


def _drawn(value: object, name: str) -> list[int]:
    ids = cast(list[Any], value) if isinstance(value, list) else []
    if not ids or not all(type(token) is int and 0 <= token < 2**31 for token in ids):
        raise RowError(f"{name} is not a list of token ids")
    return ids


def _weight(value: object, name: str) -> float:
    weight = number(value, name)
    if weight < 0:
        raise RowError("negative weight", f"{weight:g}")
    if weight > _HEAVIEST:
        raise RowError("weight above 1e6", f"{weight:g}")
    return weight


def _label(value: object, name: str) -> str:
    if name == "source" and isinstance(value, list):  # as Nectar has it
        value = ", ".join(map(str, value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise RowError(f"{name} is not text", f"is a {kind(value)}")
    return read_text(value, name)


_READERS: Mapping[str, Callable[[Any, str], Any]] = {
    "tools": lambda value, _: read_tools(value),
    **dict.fromkeys(SCORE_COLUMNS, number),
    "weight": _weight,
    **dict.fromkeys(("prompt_id", "ranking", "answer", "source"), _label),
    "chosen_drawn": _drawn,
    "rejected_drawn": _drawn,
    "drawn_with": _label,
}
"""How the columns are read that a row may lack."""
_BLANK = dict.fromkeys(COLUMNS)
