"""Columns that no format reads, wherever they stand: in objects, in late rows, under another name."""

from __future__ import annotations

from typing import Any

import pytest

from align.data import Preferences
from align.data.unread import Unread, judge
from align.errors import UserError
from tests.align.data.formats.tables import messages
from tests.align.data.unread_columns import ANSWER, PAIR, ROWS, chat, loaded, prose, refusal, table

INSIDE: dict[str, tuple[dict[str, Any], str]] = {
    "candidates": (
        {
            "prompt": "q",
            "candidates": [{"text": f"{k}", "score": k, "is_valid": k == 0} for k in range(2)],
        },
        "candidates.is_valid may say that the worse answer is chosen",
    ),
    "openai": (
        {
            "input": lambda i: {"messages": chat(i)[:1], "context": prose(i)},
            **{
                f"{side}preferred_output": lambda i, side=side: messages(("assistant", f"{side} {i}"))
                for side in ("", "non_")
            },
        },
        "it would lose input.context",
    ),
    "webgpt": (
        {
            "question": lambda i: {"full_text": f"q{i}", "id": f"{i}", "context": prose(i)},
            "answer_0": "a",
            "answer_1": "b",
            "score_0": 1,
            "score_1": -1,
        },
        "it would lose question.context",
    ),
}


@pytest.mark.parametrize(("cells", "said"), INSIDE.values(), ids=INSIDE)
def test_fields_inside_the_columns_of_a_format_are_judged(cells: dict[str, Any], said: str) -> None:
    assert said in refusal(cells)


def test_what_a_path_leaves_in_its_object_is_judged() -> None:
    cells = {"ex": lambda i: {"q": f"q{i}", "a": f"a{i}", "ok": i % 2 == 0}}
    columns = {"prompt": "ex.q", "completion": "ex.a"}
    assert "ex.ok may say that an answer is bad" in refusal(cells, columns=columns)
    assert loaded(cells, columns=columns, format="prompt-completion").warnings == ('column "ex.ok" is not read',)


def test_columns_that_need_no_mapping_or_one_that_works() -> None:
    chats = {"conversation": lambda i: chat(i), "turn": 1, "language": "English", "toxic": False}
    said = refusal(chats)
    assert "data.columns='{messages: conversation}' data.format=messages (if toxic says nothing of the answers)" in said
    assert loaded(chats, columns={"messages": "conversation"}, format="messages").kept == ROWS
    rated = {"prompt": "q", "responses": ["a", "b"], "toxicity_scores": [0.1, 0.9]}
    assert "scores: COLUMN" in refusal(rated)


@pytest.mark.parametrize(
    ("row", "name", "value", "said"),
    [
        (PAIR, "passage", prose(1), "As pairwise it would lose passage"),
        (PAIR, "flipped", True, "flipped may say that the worse answer is chosen"),
        (ANSWER, "ok", False, "ok may say that an answer is bad"),
        (ANSWER, "status", "rejected", "status may say that an answer is bad"),
    ],
)
@pytest.mark.parametrize("before", [{}, {"status": "done"}], ids=["new", "known"])
def test_columns_that_begin_to_matter_in_late_rows(
    row: dict[str, Any], name: str, value: Any, said: str, before: dict[str, Any]
) -> None:
    rows = table({**row, **before}, 1005)
    rows[-1] = {**rows[-1], name: value}
    first = 1001 if name in before else 1005
    with pytest.raises(UserError, match=f"rows:{first} and following: {said}"):
        Preferences.from_rows(rows)
    assert len(Preferences.from_rows(rows, format="pairwise" if row is PAIR else "prompt-completion")) == 1005


def test_texts_with_brackets_are_texts() -> None:
    """A list in TeX is no list, and no warning of Python is seen."""
    texts = [f"[1, \\d] is an interval with the number {i}" for i in range(3)]
    assert judge({"zz": texts}, "pairs").parts == ["zz"]
    assert judge({"zz": [f'{{"id": {i}, "lang": "no"}}' for i in range(3)]}, "demonstrations") == Unread()


def test_nothing_is_said_of_empty_columns_or_of_prompts_alone() -> None:
    assert judge({"label": [None, "", float("nan")], "passage": []}, "demonstrations") == Unread()
    assert judge({"score": [1, 2], "n": [True]}, "prompts") == Unread()
