"""Two responses and a label for the better one: PandaLM and Anthropic's model-written evaluations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from align.data.formats.base import SHARED_COLUMNS, Format, shared_fields
from align.data.load_report import RowError
from align.data.messages import kind

__all__ = ["ANTHROPIC_EVALS", "PANDALM"]

_ANNOTATORS = ("annotator1", "annotator2", "annotator3")


def _pandalm(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    votes = Counter(_vote(row, name) for name in _ANNOTATORS)
    better, count = votes.most_common(1)[0]
    if 2 * count <= len(_ANNOTATORS):
        raise RowError("the annotators have no majority")
    if better == 0:
        raise RowError("tie between the responses")
    first, second = row["response1"], row["response2"]
    chosen, rejected = (first, second) if better == 1 else (second, first)
    yield {"prompt": _prompt(row), "chosen": chosen, "rejected": rejected} | shared_fields(row)


def _vote(row: Mapping[str, Any], annotator: str) -> int:
    vote = row[annotator]
    if vote not in (0, 1, 2):
        raise RowError("unknown label", f"{annotator} is {vote!r}, not 0 (tie), 1 or 2")
    return int(vote)


def _prompt(row: Mapping[str, Any]) -> str:
    """Return the instruction, followed by the input if there is one."""
    parts = [row["instruction"], row.get("input") or ""]
    for part in parts:
        if not isinstance(part, str):
            raise RowError("instruction or input is not text", f"is a {kind(part)}")
    return "\n".join(filter(None, parts))


def _anthropic_evals(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    sides = {"chosen": row["answer_matching_behavior"], "rejected": row["answer_not_matching_behavior"]}
    yield {"prompt": row["question"]} | sides | shared_fields(row)


PANDALM = Format(
    name="pandalm",
    description="instruction, input, response1, response2 and the labels of three annotators (PandaLM)",
    polarity="chosen is the response most annotators name; ties and rows without a majority are rejected",
    requires=frozenset({"instruction", "response1", "response2", *_ANNOTATORS}),
    convert=_pandalm,
    optional=SHARED_COLUMNS | {"input"},
)
ANTHROPIC_EVALS = Format(
    name="anthropic-evals",
    description="question, answer_matching_behavior, answer_not_matching_behavior (Anthropic's model-written evals)",
    polarity="chosen is the answer that matches the behaviour",
    requires=frozenset({"question", "answer_matching_behavior", "answer_not_matching_behavior"}),
    convert=_anthropic_evals,
)
