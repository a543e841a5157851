"""Answers that are whole transcripts beside the prompt that they hold, cut behind it: one place for all formats.

Two answers are cut behind the last mark of an assistant in what both begin with, if that holds the prompt; a single
one behind the mark that follows the prompt, if it begins as a transcript. An answer that only quotes turns stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from align.data.formats.hh import spoken
from align.data.formats.parts import prompt_with_system
from align.data.formats.trl import cut_at
from align.data.formats.turn_marks import answer_start, asks, begins_with_turn, is_transcript, without_marks
from align.data.load_report import RowError
from align.data.rendering import shared_length
from align.data.schema import ROLES

__all__ = ["answers_alone"]

_HEAD = 40  # characters of a prompt that are looked for before anything slower
_DISAGREE = "the transcripts do not begin with the prompt"


def answers_alone(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return fields of the pairwise format whose answers no longer hold the prompt; others unchanged.

    The prompt is then what the transcript has before the answer, with its marks, behind the row's turn of the system.

    Raises:
        RowError: The transcripts do not agree with each other or with the prompt.
    """
    turned = spoken(fields)
    if turned is not fields:
        return turned
    sides = {name: fields[name] for name in ("chosen", "rejected") if fields.get(name) is not None}
    system, asked = _asked(fields.get("prompt"))
    if not sides or not asked or not all(isinstance(side, str) for side in sides.values()):
        return fields
    wholes = list(map(_is_whole, sides.values()))
    head = asked.splitlines()[0][:_HEAD]
    if not (all(wholes) or all(head in side for side in sides.values())):
        return fields
    if len(sides) == 1:
        start = _start_of_one(next(iter(sides.values())), asked)
        cut = None if start is None else cut_at(start, **sides)
    else:
        cut = _pair(asked, whole=all(wholes), **sides)
    if cut is None:
        return fields
    heard = system is None or _holds(without_marks(cut["prompt"]), system)
    return {**fields, **cut, "prompt": cut["prompt"] if heard else prompt_with_system(cut["prompt"], system)}


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
