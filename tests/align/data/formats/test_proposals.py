"""The mapping that a refusal proposes: what it leaves out is named, and lists of scored answers are read."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.data import Preferences
from align.data.formats import UnknownFormatError, known_formats
from align.errors import UserError
from tests.align.data.formats.tables import read
from tests.align.data.formats.test_mapping import assert_short, pasted, shape, unknown

CANDIDATES = [
    ("prompt", "candidates", "text", "score"),
    ("question", "answers", "text", "score"),
    ("instruction", "completions", "response", "rating"),
    ("query", "responses", "content", "reward"),
    ("prompt", "answers", "answer", "score"),
    ("the task", "replies", "completion", "rating"),
    ("problem", "my candidates", "output", "reward"),
]


@pytest.mark.parametrize(("asked", "listed", "answer", "score"), CANDIDATES)
def test_lists_of_answers_with_a_score_each(asked: str, listed: str, answer: str, score: str) -> None:
    """Recognised under the usual names, else with the mapping that the refusal shows; a higher score is better."""
    items = [{answer: "low", score: -1, "model": "m"}, {answer: "high", score: "2.5", "model": "n"}]
    rows = [{asked: f"q{i}", listed: items[:: (-1) ** i], "id": i} for i in range(3)]
    columns = None
    if listed not in known_formats()["candidates"].columns:
        with pytest.raises(UnknownFormatError) as refusal:
            Preferences.from_rows(rows)
        assert_short(refusal.value)
        columns = pasted(str(refusal.value))
    made, report = read(rows, columns=columns)
    assert report.rule == "candidates"
    assert made == [(f"q{i}", "high", "low", {"chosen_score": 2.5, "rejected_score": -1.0}) for i in range(3)]


@pytest.mark.parametrize(
    "item",
    [
        {"text": "a", "score": 1, "rank": 2},
        {"text": "a", "score": 1, "rating": 2},
        {"text": "a", "content": "b", "score": 1},
        {"role": "user", "content": "a", "score": 1},
        {"text": "a"},
    ],
)
def test_objects_whose_score_or_answer_is_not_clear_are_no_candidates(item: dict[str, Any]) -> None:
    with pytest.raises(UnknownFormatError):
        read([{"prompt": "q", "candidates": [item, item]}] * 3)


@pytest.mark.parametrize(
    ("columns", "lost"),
    [
        ({"dialogue": "d", "passage": "p", "question": "q", "good": "a", "bad": "b"}, "dialogue, passage"),
        ({"documents": ["x", "y"], "question": "q", "good": "a", "bad": "b"}, "documents"),
        ({"functions": "not JSON", "article": "t", "prompt": "q", "good": "a", "bad": "b"}, "article, functions"),
        ({"context": "c", "prompt": "q", "completion": "a", "kto_tag": True}, "context"),
        ({"instruction": "i", "prompt_2": "q", "output_1": "a", "output_2": "b", "label": 1}, "instruction"),
        (
            {"persona": "It speaks as a pirate would.", "task": "q", "reply_a": "a", "reply_b": "b", "vote": 1},
            "persona",
        ),
    ],
)
def test_a_proposal_names_what_it_leaves_out(columns: dict[str, Any], lost: str) -> None:
    with pytest.raises(UnknownFormatError) as refusal:
        Preferences.from_rows(unknown(**columns))
    assert_short(refusal.value)
    assert f"(it leaves out {lost})" in str(refusal.value)


def test_functions_are_proposed_as_tools() -> None:
    rows = unknown(functions=[{"name": "f", "parameters": {}}], question="q", good="a", bad="b")
    with pytest.raises(UnknownFormatError) as refusal:
        Preferences.from_rows(rows)
    assert "leaves out" not in str(refusal.value)
    made = Preferences.from_rows(rows, columns=pasted(str(refusal.value)))
    assert made[0]["tools"] == json.dumps(rows[0]["functions"])


PARTS = """
    prompt question instruction context history dialogue functions documents prompt_2 input query system
""".split()  # noqa: SIM905
SIDES: list[dict[str, Any]] = [
    {"good": "a", "bad": "b"},
    {"answer_a": "a", "answer_b": "b", "winner": "a"},
    {"output_1": "a", "output_2": "b", "label": 1},
    {"completion": "a", "kto_tag": True},
    {"reply": "a", "liked": False},
    {"replies": [{"text": "a", "score": 1}, {"text": "b", "score": 2}]},
]


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.sampled_from(PARTS), st.sampled_from(["text", "list", "turns"]), min_size=2, max_size=6),
    st.sampled_from(SIDES),
)
def test_a_part_of_the_prompt_is_in_what_is_read_or_named(parts: dict[str, str], sides: dict[str, Any]) -> None:
    """Every text that looks like a part of the prompt is learned from, or the refusal names its column."""
    texts = {name: f"The part called {name} is rather long." for name in parts}
    row = sides | {name: shape(kind, texts[name]) for name, kind in parts.items()}
    named = ""
    try:
        data = Preferences.from_rows([row] * 3)
    except UnknownFormatError as refusal:
        assert_short(refusal)
        named = str(refusal).partition("(it leaves out ")[2]
        if not re.search(r"data\.columns='", str(refusal)):
            return
        columns = pasted(str(refusal))
        if "COLUMN" in columns.values():
            return
        try:
            data = Preferences.from_rows([row] * 3, columns=columns)
        except UserError as again:
            assert_short(again)
            return
    read_text = repr(list(data))
    for name, text in texts.items():
        assert text in read_text or name in named, (name, named)
