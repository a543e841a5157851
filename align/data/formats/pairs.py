"""Pairs whose sides have columns of their own, under the names that public data sets give them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from align.data.formats.base import SHARED_COLUMNS, Format, Sample, shared_fields
from align.data.formats.parts import (
    CONVERSATIONS,
    conversation,
    instruction,
    only_one,
    prompt_with_system,
    require_answer,
    require_known,
    shared_turns,
)
from align.data.load_report import RowError

__all__ = [
    "ALPACA_PAIRS",
    "ANTHROPIC_EVALS",
    "ARGILLA",
    "DISTILABEL_ORCA",
    "LABEL_PAGE",
    "MS_SWIFT",
    "OPENAI_PREFERENCE",
    "ORCA_PAIRS",
    "PAIRWISE",
    "SHAREGPT_PAIRS",
    "STACK_EXCHANGE_PAIRED",
    "TORCHTUNE",
    "ULTRAFEEDBACK",
]

_CHOSEN = "chosen is the column `chosen`"
_SCORES = {
    "chosen_score": ("score_chosen", "chosen_rating", "chosen-rating"),
    "rejected_score": ("score_rejected", "rejected_rating", "rejected-rating"),
}
_NAMES_OF_SCORES = frozenset(name for names in _SCORES.values() for name in names)
_REJECTED = frozenset({"rejected_response", "rejected_messages", "rejected"})


def _pairwise(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    prompt = row["prompt"]
    sides = {name: _side(row[name], name) for name in ("chosen", "rejected")}
    if any(map(_is_whole, sides.values())):
        whole = shared_turns(**sides)
        prompt, sides = _agreed(prompt, whole["prompt"]), {name: whole[name] for name in sides}
    require_known(row.get("messages"), prompt, sides["chosen"])
    scores = {ours: row[name] for ours, names in _SCORES.items() for name in names if row.get(name) is not None}
    yield {"prompt": prompt_with_system(prompt, row.get("system")), **sides} | scores | shared_fields(row)


def _side(side: Any, name: str) -> Any:
    """Return the messages of a side under the roles of the pairwise format, and what is no list or object unchanged."""
    if isinstance(side, Mapping) or (isinstance(side, list) and all(isinstance(turn, Mapping) for turn in side)):
        return conversation(side, name)
    return side


def _is_whole(side: object) -> bool:
    """Return whether a side is a conversation with the prompt in it."""
    return isinstance(side, list) and len(cast(list[Any], side)) > 1


def _agreed(prompt: object, turns: list[Any]) -> list[Any]:
    """Return what conversations begin with, behind the system's turns that only the column `prompt` has.

    The column must be all of the turns, or the last or first question.
    """
    asked = [turn.get("content") for turn in turns if turn.get("role") == "user"]
    if prompt is None or prompt == turns or (isinstance(prompt, str) and prompt.strip() in map(_stripped, asked)):
        return turns
    given = conversation(prompt, "prompt") if isinstance(prompt, list) else []
    if not given or _without_system(given) != _without_system(turns):
        raise RowError("the conversations do not begin with the prompt")
    system, own = ([turn for turn in some if turn.get("role") == "system"] for some in (given, turns))
    if system and own and system != own:
        raise RowError("the system says one thing in the prompt and another in the conversations")
    return turns if own else [*system, *turns]


def _without_system(turns: list[Any]) -> list[Any]:
    return [turn for turn in turns if turn.get("role") != "system"]


def _stripped(text: object) -> object:
    return text.strip() if isinstance(text, str) else text


def _ultrafeedback(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield from _pairwise({"prompt": None, **row})


def _alpaca_pairs(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"prompt": instruction(row), "chosen": row["chosen"], "rejected": row["rejected"]} | shared_fields(row)


def _argilla(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    sides = {side: row[f"{side}_response"] for side in ("chosen", "rejected")}
    yield {"prompt": instruction(row), **sides} | shared_fields(row)


def _orca_pairs(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    name = "question" if "question" in row else "input"
    prompt = prompt_with_system(row[name], row.get("system"))
    yield {"prompt": prompt, "chosen": row["chosen"], "rejected": row["rejected"]} | shared_fields(row)


def _sharegpt_pairs(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    name = only_one(row, CONVERSATIONS)
    prompt = prompt_with_system(conversation(row[name], name), row.get("system"))
    sides = {side: conversation(row[side], side) for side in ("chosen", "rejected")}
    yield {"prompt": prompt, **sides} | shared_fields(row)


def _ms_swift(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    turns = conversation(row["messages"], "messages")
    require_answer(turns, "messages")
    prompt, chosen = turns[:-1], turns[-1:]
    name = only_one(row, _REJECTED)
    rejected = row[name]
    if isinstance(rejected, list | Mapping):
        other = conversation(rejected, name)
        rejected = shared_turns(turns, other)["rejected"] if len(other) > 1 else other
    yield {"prompt": prompt, "chosen": chosen, "rejected": rejected} | shared_fields(row)


def _torchtune(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    sides = [conversation(row[f"{side}_conversations"], f"{side}_conversations") for side in ("chosen", "rejected")]
    yield shared_turns(*sides) | shared_fields(row)


def _openai(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    asked = row["input"]
    if not isinstance(asked, Mapping) or "messages" not in asked:
        raise RowError("input has no messages")
    sides = {"chosen": row["preferred_output"], "rejected": row["non_preferred_output"]}
    yield {"prompt": asked["messages"], "tools": asked.get("tools"), **sides} | shared_fields(row)


def _anthropic_evals(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    sides = {"chosen": row["answer_matching_behavior"], "rejected": row["answer_not_matching_behavior"]}
    yield {"prompt": row["question"]} | sides | shared_fields(row)


def _stack_exchange_paired(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"prompt": row["question"], "chosen": row["response_j"], "rejected": row["response_k"]} | shared_fields(row)


def _is_sharegpt(sample: Sample) -> bool:
    """Return whether the sides are one turn each: where they are conversations, these hold the prompt."""
    return "prompt" not in sample.columns and all(
        sample.mostly(side, lambda value: isinstance(value, Mapping) or (isinstance(value, list) and len(value) == 1))
        for side in ("chosen", "rejected")
    )


PAIRWISE = Format(
    name="pairwise",
    description="prompt, chosen, rejected as text, messages (TRL explicit) or conversations (Tulu 3); also system",
    polarity=_CHOSEN,
    requires=frozenset({"prompt", "chosen", "rejected"}),
    convert=_pairwise,
    optional=SHARED_COLUMNS | {"system", "messages"} | _NAMES_OF_SCORES,
)
LABEL_PAGE = Format(
    name="label-page",
    description="prompt, chosen, rejected, annotator, seconds, note, chosen_left (`align label`)",
    polarity="chosen is the column `chosen`, the answer that the annotator preferred",
    requires=frozenset({"prompt", "chosen", "rejected", "annotator", "seconds", "note", "chosen_left"}),
    convert=_pairwise,
)
ULTRAFEEDBACK = Format(
    name="ultrafeedback",
    description="chosen, rejected (conversations, or texts and prompt), score_chosen, score_rejected (UltraFeedback)",
    polarity=_CHOSEN,
    requires=frozenset({"chosen", "rejected", "score_chosen", "score_rejected"}),
    convert=_ultrafeedback,
    optional=SHARED_COLUMNS | {"prompt", "prompt_id", "messages", "system"},
)
ALPACA_PAIRS = Format(
    name="alpaca-pairs",
    description="instruction, input, chosen, rejected; also system and history (LLaMA-Factory)",
    polarity=_CHOSEN,
    requires=frozenset({"instruction", "chosen", "rejected"}),
    convert=_alpaca_pairs,
    optional=SHARED_COLUMNS | {"input", "system", "history"},
)
ARGILLA = Format(
    name="argilla",
    description="instruction, chosen_response, rejected_response (Argilla)",
    polarity="chosen is the column `chosen_response`",
    requires=frozenset({"instruction", "chosen_response", "rejected_response"}),
    convert=_argilla,
    optional=SHARED_COLUMNS | {"input", "system"},
)
ORCA_PAIRS = Format(
    name="orca-pairs",
    description="system, question, chosen, rejected (Intel Orca)",
    polarity=_CHOSEN,
    requires=frozenset({"question", "chosen", "rejected"}),
    convert=_orca_pairs,
    optional=SHARED_COLUMNS | {"system"},
)
DISTILABEL_ORCA = Format(
    name="distilabel-orca",
    description="system, input, chosen, rejected, with the generations and ratings behind them (Argilla's Orca pairs)",
    polarity=_CHOSEN,
    requires=frozenset({"system", "input", "chosen", "rejected"}),
    convert=_orca_pairs,
    optional=SHARED_COLUMNS
    | {"generations", "order", "labelling_prompt", "raw_labelling_response", "rating", "rationale", "status"}
    | {"original_chosen", "original_rejected", "chosen_score", "in_gsm8k_train", "labelling_model"},
)
SHAREGPT_PAIRS = Format(
    name="sharegpt-pairs",
    description="conversations of {from, value} or messages, chosen and rejected as such a turn (LLaMA-Factory)",
    polarity=_CHOSEN,
    requires=frozenset({"chosen", "rejected"}),
    one_of=(CONVERSATIONS,),
    convert=_sharegpt_pairs,
    recognises=_is_sharegpt,
    optional=SHARED_COLUMNS | {"system"},
)
MS_SWIFT = Format(
    name="ms-swift",
    description="messages that end with the chosen answer, rejected_response or rejected_messages (ms-swift)",
    polarity="chosen is the last turn of `messages`",
    requires=frozenset({"messages"}),
    one_of=(_REJECTED,),
    convert=_ms_swift,
)
TORCHTUNE = Format(
    name="torchtune",
    description="chosen_conversations, rejected_conversations (torchtune)",
    polarity="chosen is the column `chosen_conversations`",
    requires=frozenset({"chosen_conversations", "rejected_conversations"}),
    convert=_torchtune,
)
OPENAI_PREFERENCE = Format(
    name="openai-preference",
    description="input.messages, preferred_output, non_preferred_output (OpenAI's preference files)",
    polarity="chosen is `preferred_output`",
    requires=frozenset({"input", "preferred_output", "non_preferred_output"}),
    convert=_openai,
    inside={"input": frozenset({"messages", "tools", "parallel_tool_calls"})},
)
ANTHROPIC_EVALS = Format(
    name="anthropic-evals",
    description="question, answer_matching_behavior, answer_not_matching_behavior (Anthropic's model-written evals)",
    polarity="chosen is the answer that matches the behaviour",
    requires=frozenset({"question", "answer_matching_behavior", "answer_not_matching_behavior"}),
    convert=_anthropic_evals,
    optional=SHARED_COLUMNS | {"statement", "label_confidence"},
)
STACK_EXCHANGE_PAIRED = Format(
    name="stack-exchange-paired",
    description="question, response_j, response_k (StackExchange, paired)",
    polarity="chosen is `response_j`, which had more votes",
    requires=frozenset({"question", "response_j", "response_k"}),
    convert=_stack_exchange_paired,
)
