"""Rows of a data set as scorers see them: texts and columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from align.scoring.table import score

if TYPE_CHECKING:
    from align.scoring.scorer import Scorer


def score_texts(
    scorer: Scorer, rows: Sequence[Mapping[str, Any]], responses: Sequence[Sequence[str]]
) -> list[list[float]]:
    """Scores (P, K) of K responses to the prompts of these rows of a data set; every one a finite number.

    Raises:
        ScorerError: Scores are missing, or are no finite numbers.
    """
    return score(scorer, [prompt_text(row["prompt"]) for row in rows], responses, **scorer_columns(rows))


def scorer_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """What a scorer gets beside prompts and responses, one value per prompt."""
    return {
        "messages": [row["prompt"] for row in rows],
        "chosen": [row["chosen"][0]["content"] if row["chosen"] else None for row in rows],
        "answer": [row["answer"] for row in rows],
        "source": [row["source"] for row in rows],
    }


def prompt_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """A prompt of the shared schema as readable text: its only message, or the whole conversation."""
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)
