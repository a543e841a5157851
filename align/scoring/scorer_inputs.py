"""Rows of a dataset as texts and columns for scorers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from align.data.schema import TOKENS
from align.errors import UserError


def scorer_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the columns for a scorer, one value per prompt."""
    return {
        "messages": [row["prompt"] for row in rows],
        "chosen": [row["chosen"][0]["content"] if row["chosen"] else None for row in rows],
        "answer": [row["answer"] for row in rows],
        "source": [row["source"] for row in rows],
    }


def prompt_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return a prompt as readable text: its only message, or the whole conversation."""
    if messages[0]["role"] == TOKENS:
        raise UserError(
            "the prompts are token ids, and text is needed here; decode them in the file, with "
            'row["prompt"] = tokenizer.decode(row["prompt_ids"]), and the answers likewise.'
        )
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)
