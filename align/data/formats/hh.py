r"""HH-RLHF: two full transcripts ``"\n\nHuman: …\n\nAssistant: …"`` that differ only in the last answer.

The prompt is everything up to the last ``"\n\nAssistant:"``. It must be identical in both transcripts, otherwise
the row is rejected (5 of the 2,312 rows of harmless-base test): any other common beginning would end inside an answer.
The space after each colon belongs to the transcript and not to the turn, so that the bundled template `hh` renders
the messages back to exactly the transcript. Consecutive turns of one role inside the prompt are kept and noted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

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
    return prompt, [{"role": "assistant", "content": answer.removeprefix(" ")}]


def spoken(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return fields whose prompt is such a transcript, up to ``Assistant:``, as turns; others unchanged.

    The sides may repeat the prompt; the line breaks before its first ``Human:`` may be missing.
    """
    prompt = fields.get("prompt")
    if not isinstance(prompt, str) or not prompt.rstrip().endswith(_ASSISTANT):
        return fields
    start = prompt.rstrip()
    asked = start.removesuffix(_ASSISTANT)
    if asked.startswith(_HUMAN.lstrip()):
        asked = "\n\n" + asked
    if not asked.startswith(_HUMAN):
        return fields
    sides = {
        side: [{"role": "assistant", "content": fields[side].removeprefix(start).removeprefix(" ")}]
        for side in ("chosen", "rejected")
        if isinstance(fields.get(side), str)
    }
    return {**fields, "prompt": _turns(asked), **sides}


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
