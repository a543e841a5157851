r"""HH-RLHF: two full transcripts ``"\n\nHuman: …\n\nAssistant: …"`` that differ only in the last answer.

The prompt is everything up to the last ``"\n\nAssistant:"``. It must be identical in both transcripts, otherwise
the row is rejected (5 of the 2,312 rows of harmless-base test): any other common beginning would end inside an answer.
The space after each colon belongs to the transcript and not to the turn, so that the bundled template `hh` renders
the messages back to exactly the transcript. Consecutive turns of one role inside the prompt are kept and noted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from align.data.formats.base import Format, Sample, shared_fields
from align.data.load_report import RowError

__all__ = ["HH", "spoken"]

_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_TURN = re.compile(r"\n\n(Human|Assistant): ?")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def _hh(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    prompt, chosen = _split(row["chosen"], "chosen")
    other_prompt, rejected = _split(row["rejected"], "rejected")
    if prompt != other_prompt:
        raise RowError("prompts differ before the last turn")
    yield {"prompt": _turns(prompt), "chosen": chosen, "rejected": rejected} | shared_fields(row)


def _split(transcript: object, name: str) -> tuple[str, list[dict[str, str]]]:
    """Cut a transcript before its last ``"\n\nAssistant:"`` into the prompt and the answer (as one message)."""
    if not isinstance(transcript, str):
        raise RowError(f"{name} is not a transcript")
    prompt, marker, answer = transcript.rpartition(_ASSISTANT)
    if not marker or not prompt.startswith(_HUMAN):
        raise RowError(f"{name} is not a transcript", "it does not alternate Human: and Assistant:")
    if _HUMAN in answer:
        raise RowError(f"{name} does not end with an Assistant turn")
    return prompt, _answer(answer)


def spoken(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return fields as turns whose prompt, or whose sides, are such transcripts; others unchanged.

    A prompt ends with ``Assistant:`` and the sides may repeat it; or the sides are whole transcripts, which must then
    have the prompt in them. The line breaks before the first ``Human:`` may be missing.
    """
    texts = {side: fields[side] for side in ("chosen", "rejected") if isinstance(fields.get(side), str)}
    prompt = fields.get("prompt")
    asked = _transcript(prompt)
    if asked is not None and asked.rstrip().endswith(_ASSISTANT):
        start = asked.rstrip()
        sides = {side: _answer(_without(text, start)) for side, text in texts.items()}
        return {**fields, "prompt": _turns(start.removesuffix(_ASSISTANT)), **sides}
    wholes = {side: _transcript(text) for side, text in texts.items()}
    if not texts or not all(whole and _ASSISTANT in whole for whole in wholes.values()):
        return fields
    parts = {side: _split(whole, side) for side, whole in wholes.items()}
    if len({start for start, _ in parts.values()}) > 1:
        raise RowError("prompts differ before the last turn")
    turns = _turns(next(iter(parts.values()))[0])
    return {**fields, "prompt": _agreed(prompt, turns), **{side: answer for side, (_, answer) in parts.items()}}


def _transcript(text: object) -> str | None:
    """Return a text that begins with ``Human:``, with the line breaks before it; None if it does not."""
    if not isinstance(text, str) or not text.lstrip().startswith(_HUMAN.lstrip()):
        return None
    return "\n\n" + text.lstrip()


def _without(side: str, prompt: str) -> str:
    whole = _transcript(side)
    return whole.removeprefix(prompt) if whole is not None and whole.startswith(prompt) else side


def _agreed(prompt: object, turns: list[dict[str, str]]) -> list[Any]:
    """Return the turns of the transcripts, behind the system's turn of a prompt of messages.

    The prompt must be all of them, or one of the questions.
    """
    asked = [turn["content"].strip() for turn in turns]
    if isinstance(prompt, list) and all(isinstance(turn, Mapping) for turn in prompt):
        given = cast(list[Mapping[str, Any]], prompt)
        system = [turn for turn in given if turn.get("role") == "system"]
        if [str(turn.get("content")).strip() for turn in given if turn not in system] in (asked, asked[-1:]):
            return [*system, *turns]
    elif isinstance(prompt, str):
        questions = [text for text, turn in zip(asked, turns, strict=True) if turn["role"] == "user"]
        whole = _transcript(prompt)
        if prompt.strip() in questions or (whole is not None and _turns(whole.rstrip()) == turns):
            return turns
    raise RowError("the transcripts do not begin with the prompt")


def _answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text.removeprefix(" ")}]


def _turns(prompt: str) -> list[dict[str, str]]:
    _, *parts = _TURN.split(prompt)
    return [
        {"role": _ROLES[speaker], "content": content} for speaker, content in zip(parts[::2], parts[1::2], strict=True)
    ]


def _recognises(sample: Sample) -> bool:
    """Return whether most rows have two transcripts."""
    sides = [row.get(name) for row in sample.rows for name in ("chosen", "rejected")]
    return 2 * sum(isinstance(side, str) and side.startswith(_HUMAN) for side in sides) > len(sides)


HH = Format(
    name="hh-rlhf",
    description="chosen, rejected as full Human/Assistant transcripts (Anthropic HH-RLHF)",
    polarity="chosen is the transcript in the column `chosen`",
    requires=frozenset({"chosen", "rejected"}),
    convert=_hh,
    recognises=_recognises,
)
