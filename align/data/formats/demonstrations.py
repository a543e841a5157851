"""Answers to imitate, answers that are only known to be good or bad, prompts alone, and plain text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from itertools import cycle
from typing import Any, cast

from align.data.formats.base import SHARED_COLUMNS, Format, Sample, shared_fields
from align.data.formats.labels import Labels, good_or_bad
from align.data.formats.parts import (
    CONVERSATIONS,
    conversation,
    instruction,
    only_one,
    prompt_with_system,
    require_answer,
)
from align.data.formats.trl import cut_at
from align.data.formats.turn_marks import answer_start, begins_with_turn
from align.data.load_report import RowError
from align.data.marks import require_good, require_learned, require_no_part
from align.data.schema import CONTINUED

__all__ = [
    "ALPACA",
    "DEMONSTRATION",
    "KTO",
    "KTO_ALPACA",
    "KTO_MESSAGES",
    "MESSAGES",
    "PROMPT",
    "PROMPT_COMPLETION",
    "QUESTIONS",
    "SELF_INSTRUCT",
    "SHAREGPT",
    "TEXT",
    "TRANSCRIPT",
]

_NO_PREFERENCE = "no preference: the response is a demonstration"
_PROMPTS_ONLY = "no preference: prompts only"
_BY_LABEL = "an answer is chosen where its label is true, rejected where it is false; the other side is empty"
_LABELS = frozenset({"label", "kto_tag"})
_TRUE_OR_FALSE = Labels(
    columns=tuple(sorted(_LABELS)), accepted="true for a good answer, false for a bad one", read=good_or_bad
)


def _demonstration(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    fields = {"prompt": prompt_with_system(row["prompt"], row.get("system"))}
    yield fields | {name: row[name] for name in ("chosen",) if name in row} | shared_fields(row)


def _prompt_completion(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"prompt": row["prompt"], "chosen": row["completion"]} | shared_fields(row)


def _messages(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    shown, prompt = _demonstrated(row, "messages"), row.get("prompt")
    if prompt and prompt not in (shown["prompt"], *(turn.get("content") for turn in shown["prompt"])):
        raise RowError("the messages do not have the prompt in them")
    yield shown | shared_fields(row)


def _sharegpt(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    turns = row["conversations"]
    if turns and all(isinstance(turn, str) for turn in turns):  # LIMA: questions and answers take turns
        roles = cycle(("user", "assistant"))
        turns = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]
    yield _demonstrated({**row, "conversations": turns}, "conversations") | shared_fields(row)


def _demonstrated(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Cut a conversation before its last answer."""
    turns = conversation(row[name], name)
    require_answer(turns, name)
    return {"prompt": prompt_with_system(turns[:-1], row.get("system")), "chosen": turns[-1:]}


def _alpaca(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    text, asked = row.get("text"), row["instruction"]
    if isinstance(text, str) and isinstance(asked, str) and text and asked.strip() not in text:
        raise RowError("`text` is not the instruction with its answer; if it belongs to the prompt, call it `input`")
    yield {"prompt": instruction(row), "chosen": row["output"]} | shared_fields(row)


def _self_instruct(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    instances = row["instances"]
    if not isinstance(instances, list):
        raise RowError("instances is not a list")
    for instance in cast(list[Any], instances):
        if not isinstance(instance, Mapping) or "output" not in instance:
            raise RowError("an instance has no output")
        require_learned(instance)
        require_good(instance)
        require_no_part(instance, "an instance")
        prompt = instruction({"instruction": row["instruction"], "input": instance.get("input")})
        yield {"prompt": prompt, "chosen": instance["output"]} | shared_fields(row)


def _text(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    text = row["text"]
    if not isinstance(text, str):
        raise RowError("text is not text")
    key = hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]
    prompt = [{"role": CONTINUED, "content": ""}]
    yield {"prompt": prompt, "chosen": text, "prompt_id": key} | shared_fields(row)


def _transcript(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    start = _start_of_answer(row["text"])
    if start is None:
        raise RowError("the text is no transcript that begins with a user's turn and ends with an answer")
    yield cut_at(start, chosen=row["text"]) | shared_fields(row)


def _start_of_answer(text: object) -> int | None:
    start = answer_start(text) if isinstance(text, str) and begins_with_turn(text) else None
    return start if start is not None and str(text)[start:].strip() else None


def _is_transcripts(sample: Sample) -> bool:
    return sample.mostly("text", lambda text: _start_of_answer(text) is not None)


def _questions(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    turns = row["turns"]
    if not isinstance(turns, list) or not turns:
        raise RowError("turns is not a list of questions")
    yield {"prompt": turns[0]} | shared_fields(row)  # the later ones ask about an answer that is not there


def _kto(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"prompt": row["prompt"], _side(row): row["completion"]} | shared_fields(row)


def _kto_alpaca(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"prompt": instruction(row), _side(row): row["output"]} | shared_fields(row)


def _kto_messages(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    shown = _demonstrated(row, only_one(row, CONVERSATIONS))
    yield {"prompt": shown["prompt"], _side(row): shown["chosen"]} | shared_fields(row)


def _side(row: Mapping[str, Any]) -> str:
    """Return the side of a single answer: chosen if its label is true, rejected if it is false."""
    return "chosen" if good_or_bad(row, only_one(row, _LABELS)) else "rejected"


def _is_conversations(sample: Sample) -> bool:
    return sample.mostly("conversations", lambda value: isinstance(value, list))


DEMONSTRATION = Format(
    name="demonstration",
    description="prompt, chosen as text or messages",
    polarity=_NO_PREFERENCE,
    requires=frozenset({"prompt", "chosen"}),
    convert=_demonstration,
    gives="demonstrations",
    optional=SHARED_COLUMNS | {"system"},
)
PROMPT_COMPLETION = Format(
    name="prompt-completion",
    description="prompt, completion as text or messages (TRL)",
    polarity=_NO_PREFERENCE,
    requires=frozenset({"prompt", "completion"}),
    convert=_prompt_completion,
    gives="demonstrations",
)
MESSAGES = Format(
    name="messages",
    description="messages that end with the assistant's answer",
    polarity=_NO_PREFERENCE,
    requires=frozenset({"messages"}),
    convert=_messages,
    gives="demonstrations",
    optional=SHARED_COLUMNS | {"system", "prompt", "title"},
)
SHAREGPT = Format(
    name="sharegpt",
    description="conversations of {from, value} that end with an answer (ShareGPT)",
    polarity=_NO_PREFERENCE,
    requires=frozenset({"conversations"}),
    convert=_sharegpt,
    recognises=_is_conversations,
    gives="demonstrations",
    optional=SHARED_COLUMNS | {"system", "title"},
)
ALPACA = Format(
    name="alpaca",
    description="instruction, input, output; also system and history (Alpaca)",
    polarity=_NO_PREFERENCE,
    requires=frozenset({"instruction", "output"}),
    convert=_alpaca,
    gives="demonstrations",
    optional=SHARED_COLUMNS | {"input", "system", "history", "text"},
)
SELF_INSTRUCT = Format(
    name="self-instruct",
    description="instruction, instances of input and output (self-instruct)",
    polarity=_NO_PREFERENCE,
    requires=frozenset({"instruction", "instances"}),
    convert=_self_instruct,
    gives="demonstrations",
    optional=SHARED_COLUMNS | {"is_classification", "name", "motivation_app"},
)
TEXT = Format(
    name="text",
    description="text: documents to model as they are, without turns (pretraining)",
    polarity="no preference: the whole text is trained on",
    requires=frozenset({"text"}),
    convert=_text,
    gives="demonstrations",
    optional=SHARED_COLUMNS | {"url", "timestamp"},
)
TRANSCRIPT = Format(
    name="transcript",
    description="text: transcripts such as ### Human: … ### Assistant: …; data.format=text trains on all of them",
    polarity=_NO_PREFERENCE,
    requires=frozenset({"text"}),
    convert=_transcript,
    recognises=_is_transcripts,
    gives="demonstrations",
    optional=TEXT.optional,
)
KTO = Format(
    name="kto",
    description="prompt, completion, label true or false (KTO)",
    polarity=_BY_LABEL,
    requires=frozenset({"prompt", "completion"}),
    convert=_kto,
    labels=_TRUE_OR_FALSE,
    one_of=(_LABELS,),
    gives="unpaired",
)
KTO_ALPACA = Format(
    name="kto-alpaca",
    description="instruction, input, output, label or kto_tag true or false; also system and history (LLaMA-Factory)",
    polarity=_BY_LABEL,
    requires=frozenset({"instruction", "output"}),
    one_of=(_LABELS,),
    convert=_kto_alpaca,
    labels=_TRUE_OR_FALSE,
    gives="unpaired",
    optional=SHARED_COLUMNS | {"input", "system", "history"},
)
KTO_MESSAGES = Format(
    name="kto-messages",
    description="messages (or conversations) that end with an answer, label or kto_tag true or false (LLaMA-Factory)",
    polarity=_BY_LABEL,
    requires=frozenset(),
    one_of=(CONVERSATIONS, _LABELS),
    convert=_kto_messages,
    labels=_TRUE_OR_FALSE,
    gives="unpaired",
    optional=SHARED_COLUMNS | {"system"},
)
PROMPT = Format(
    name="prompt",
    description="prompt alone, as text or messages",
    polarity=_PROMPTS_ONLY,
    requires=frozenset({"prompt"}),
    convert=_demonstration,
    gives="prompts",
    optional=SHARED_COLUMNS | {"system"},
)
QUESTIONS = Format(
    name="questions",
    description="turns: the first is the prompt (MT-Bench questions)",
    polarity=_PROMPTS_ONLY,
    requires=frozenset({"question_id", "turns"}),
    convert=_questions,
    gives="prompts",
    optional=SHARED_COLUMNS | {"category", "reference"},
)
