"""Rows as scorers see them."""

from __future__ import annotations

from typing import Any

import pytest

from align.scoring.scorer_inputs import prompt_text, scorer_columns


def said(*texts: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in zip(("user", "assistant", "system"), texts, strict=False)]


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        (said("a"), "a"),
        (said("a", "b"), "user: a\nassistant: b"),
        (said("a", "b", "c"), "user: a\nassistant: b\nsystem: c"),
    ],
)
def test_a_conversation_is_shown_with_its_roles(messages: Any, text: str) -> None:
    assert prompt_text(messages) == text


def test_each_column_has_one_value_per_prompt() -> None:
    rows = [
        {"prompt": said("p"), "chosen": said("c"), "rejected": said("r"), "answer": "7", "source": "s"},
        {"prompt": said("q"), "chosen": None, "rejected": None, "answer": None, "source": None},
    ]
    assert scorer_columns(rows) == {
        "messages": [said("p"), said("q")],
        "chosen": ["c", None],
        "answer": ["7", None],
        "source": ["s", None],
    }
