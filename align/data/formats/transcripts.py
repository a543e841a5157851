"""Answers that are whole transcripts beside the prompt that they hold, cut behind it: one place for all formats.

Two answers are cut behind the last mark of an assistant in what both begin with, if that holds the prompt; a single
one behind the mark that follows the prompt, if it begins as a transcript. An answer that only quotes turns stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from align.data.formats.hh import spoken
from align.data.formats.parts import prompt_with_system
from align.data.formats.trl import cut_at
from align.data.formats.turn_marks import answer_start, asks, begins_with_turn, is_transcript, without_marks
from align.data.load_report import RowError
from align.data.rendering import shared_length
from align.data.schema import ROLES, Row

__all__ = ["answers_alone", "require_alone"]

_HEAD = 40  # characters of a prompt that are looked for before anything slower
_LONG = 20  # characters of a prompt that no answer has by chance
_NEAR = 80  # characters before a prompt with which an answer may begin
_MARKED = re.compile(
    r"\W*|\s*(?:[<\[{\#].*|(?:.*[\n>])?(?:[^\s:\uff1a]+[ \t]+){0,3}[^\s:\uff1a]+[ \t]*[:\uff1a]\W*)", re.DOTALL
)
"""Texts before a prompt that an answer repeats: nothing, ``<|user|>``, ``[INST]``, ``### Task``, ``Falcon:`` …"""
_DISAGREE = "the transcripts do not begin with the prompt"


def answers_alone(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return fields of the pairwise format whose answers no longer hold the prompt; others unchanged.

    The prompt is then what the transcript has before the answer, with its marks, behind the row's turn of the system.
    Where the answers are messages, or have only a part of the prompt before them, it stays as it is given.

    Raises:
        RowError: The transcripts do not agree with each other or with the prompt.
    """
    fields = spoken(fields)
    given = {name: fields[name] for name in ("chosen", "rejected") if fields.get(name) is not None}
    sides = {name: text for name, side in given.items() if (text := _text_of(side))}
    prompt = fields.get("prompt")
    if not sides or len(sides) < len(given) or (type(prompt) is list and sides != given and _is_new(prompt, sides)):
        return fields
    system, asked = _asked(prompt)
    if not asked:
        return fields
    cut = _cut(asked, sides) if all(isinstance(side, str) for side in given.values()) else None
    if cut is not None:
        heard = system is None or _holds(without_marks(cut["prompt"]), system)
        return {**fields, **cut, "prompt": cut["prompt"] if heard else prompt_with_system(cut["prompt"], system)}
    if not all(_has_an_end(asked, side) for side in sides.values()):
        return fields
    starts = {name: _start_behind_a_part(side, f"{system} {asked}") for name, side in sides.items()}
    answers = {name: sides[name][start:].strip() for name, start in starts.items() if start is not None}
    if len(answers) < len(sides):
        return fields
    texts = isinstance(next(iter(given.values())), str)
    return {**fields, **{n: text if texts else [{**given[n][0], "content": text}] for n, text in answers.items()}}


def require_alone(row: Row, note: Callable[[str], None]) -> None:
    """Raise `RowError` if the answers begin with the prompt's last turn, alone or behind a mark of a transcript.

    An answer that is nothing but the prompt, or that quotes it in its own words, stays. One of two answers that begins
    with the very prompt, as models may, is noted.
    """
    asked = row["prompt"][-1]["content"].strip()
    sides = [side[0]["content"] for side in (row["chosen"], row["rejected"]) if side]
    if len(asked) < _LONG or not any(asked in side for side in sides):
        return
    before = [_before(asked, side) for side in sides]
    if any(text is not None and text.strip() for text in before) or None not in before:
        raise RowError("the answer repeats the prompt")
    if any(text is not None for text in before):
        note("one of the answers begins with the prompt")


def _before(asked: str, answer: str) -> str | None:
    """Return what stands before the prompt in an answer that repeats it; None if it does not."""
    before, found, after = answer.partition(asked)
    if not found or not any(map(str.isalnum, after)):
        return None
    marked = begins_with_turn(answer) or (len(before) <= _NEAR and _MARKED.fullmatch(before))
    return before if marked else None


def _text_of(side: object) -> str | None:
    """Return the text of an answer, also of one that is a message."""
    if type(side) is list and len(turns := cast(list[Any], side)) == 1 and type(turns[0]) is dict:
        side = turns[0].get("content") if turns[0].get("role") == "assistant" else None
    return side if isinstance(side, str) else None


def _is_new(prompt: list[Any], sides: Mapping[str, str]) -> bool:
    """Return whether an answer has nothing of the prompt's last turn: said fast, as it is of nearly all."""
    last = prompt[-1].get("content") if prompt and type(prompt[-1]) is dict else None
    return isinstance(last, str) and not all(_has_an_end(last.strip(), side) for side in sides.values())


def _has_an_end(asked: str, side: str) -> bool:
    return asked[:_LONG] in side or asked[-_LONG:] in side


def _cut(asked: str, sides: Mapping[str, str]) -> dict[str, str] | None:
    """Return prompt and answers of texts that are transcripts; None where they are answers as they are."""
    wholes = list(map(_is_whole, sides.values()))
    head = asked.splitlines()[0][:_HEAD]
    if not (all(wholes) or all(head in side for side in sides.values())):
        return None
    if len(sides) > 1:
        return _pair(asked, whole=all(wholes), **sides)
    start = _start_of_one(next(iter(sides.values())), asked)
    return None if start is None else cut_at(start, **sides)


def _start_behind_a_part(answer: str, asked: str) -> int | None:
    """Return where the answer of a transcript begins that has a part of the prompt and nothing else before it."""
    start = answer_start(answer) if begins_with_turn(answer) else None
    before = without_marks(answer[:start])
    return start if start and len(before) >= _LONG and _holds(without_marks(asked), before) else None


def _asked(prompt: object) -> tuple[str | None, str]:
    """Return what the system says, and the text of all other turns; nothing of what is no text or no turns."""
    if isinstance(prompt, str):
        return None, prompt.strip()
    if not isinstance(prompt, list):
        return None, ""
    turns = cast(list[Any], prompt)
    if not all(isinstance(t, Mapping) and t.get("role") in ROLES and isinstance(t.get("content"), str) for t in turns):
        return None, ""
    spoken_by_system = [turn["content"] for turn in turns if turn["role"] == "system"]
    asked = "\n".join(turn["content"] for turn in turns if turn["role"] != "system")
    return "\n".join(spoken_by_system) or None, asked.strip()


def _is_whole(answer: str) -> bool:
    """Return whether an answer begins as transcripts do; "Question: …" and "Answer: …" alone may be all of it."""
    return is_transcript(answer) or (begins_with_turn(answer, surely=True) and answer_start(answer) is not None)


def _pair(asked: str, chosen: str, rejected: str, *, whole: bool) -> dict[str, str] | None:
    """Return prompt and answers of two transcripts; None where they are answers as they are."""
    shared = chosen[: shared_length(chosen, rejected)]
    start = answer_start(shared)
    if start is not None and asks(shared):
        before = without_marks(shared[:start])
        if before.endswith(without_marks(asked)) or (whole and _holds(before, asked)):
            return cut_at(start, chosen=chosen, rejected=rejected)
        if whole:
            raise RowError(_DISAGREE)
    elif whole and all(_start_of_one(side, asked) is not None for side in (chosen, rejected)):
        raise RowError("prompts differ before the last turn")
    return None


def _start_of_one(answer: str, asked: str) -> int | None:
    """Return where the answer of a transcript begins that asks this last; None where it is an answer as it is."""
    start = answer_start(answer) if begins_with_turn(answer) else None
    if start is None or without_marks(answer[:start]).endswith(without_marks(asked)):
        return start
    if is_transcript(answer) and _holds(without_marks(answer[:start]), asked):
        raise RowError("the transcript goes on behind the answer to the prompt")
    return None


def _holds(text: str, part: str) -> bool:
    return f" {without_marks(part)} " in f" {text} "
