"""Columns beside demonstrations that may say that an answer is bad."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.align.data.unread_columns import ANSWER, ROWS, chat, loaded, prose, refusal


def test_demonstrations_that_need_a_mapping() -> None:
    dolly: dict[str, Any] = {"instruction": prose, "context": "", "response": prose, "category": "open_qa"}
    assert loaded(dolly, columns={"input": "context", "output": "response"}).rule == "alpaca"
    maths: dict[str, Any] = {"problem": prose, "generated_solution": prose, "expected_answer": lambda i: f"{i}"}
    columns = {"prompt": "problem", "chosen": "generated_solution"}
    assert loaded({**maths, "problem_source": "augmented_math"}, columns=columns).rule == "demonstration"
    judged = {**maths, "is_correct": lambda i: i % 2 == 0}
    assert "is_correct may say that an answer is bad" in refusal(judged, columns=columns)
    assert loaded(judged, columns=columns, format="demonstration").kept == ROWS


VERDICTS: dict[str, Any] = {
    "flag": lambda i: i % 2 == 0,
    "all_false": False,
    "all_true": True,
    "as_text": "False",
    "train": False,
    "loss": lambda i: i % 2,
    "outcome": lambda i: ["pass", "fail"][i % 2],
    "status": lambda i: ["done", "Rejected"][i % 2],
    "category": "bad",
    "type": "👎",
    "sentiment": lambda i: ["positive", "negative"][i % 2],
    "opinion": lambda i: ["very good", "not good"][i % 2],
    "q": lambda i: i % 5,
    "q_as_text": lambda i: f"{i % 5}.0",
    "golden": "N",
    "keep": lambda i: "yn"[i % 2],
    "accept": lambda i: "AR"[i % 2],
    "comment": "This is wrong.",
    "stars": "★★☆",
    "mark": "3/5",
    "sign": lambda i: "+-"[i % 2],
    "feedback.name": {"name": "x"},
    "info.ok": lambda i: str({"id": i, "ok": False}),
    "elo": 1000,
    "Güte": 1,
    "label_id": lambda i: i % 2,
    "upvote_count": 3,
    "trust_level": 2,
    "rating": "4 stars",
    "meta.label": lambda i: {"label": i % 2 == 0},
    "info.rating": lambda i: [{"rating": i}],
    "extra.ok": lambda i: json.dumps({"id": i, "ok": False}),
    "metadata.review.outcome": {"review": {"outcome": "rejected"}},
    "decision": lambda i: ["a", "b", "c"][i % 3],
    "result": lambda i: ["AC", "WA"][i % 2],
    "评价": lambda i: ["好", "差"][i % 2],
    "kind": lambda i: ["positive_sample", "hard_negative"][i % 2],
    "class": lambda i: ["high quality", "low quality"][i % 2],
    "state": lambda i: ["published", "removed"][i % 2],
    "reject_reason": lambda i: ["", "off topic"][i % 2],
    "deleted_at": lambda i: [None, "2024-01-02"][i % 2],
    "emoji": lambda i: ["ok ✅", "no ❌"][i % 2],
    "skip": lambda i: i % 2 == 0,
    "source": lambda i: ["good", "rejected"][i % 2],
    "metadata.tier": lambda i: {"tier": ["gold", "bronze"][i % 2]},
}


@pytest.mark.parametrize("name", VERDICTS)
@pytest.mark.parametrize(
    "row", [ANSWER, {"prompt": prose, "chosen": prose}, {"text": prose}, {"messages": chat}], ids=lambda row: [*row][-1]
)
def test_what_may_be_a_verdict_on_an_answer_to_imitate_is_refused(row: dict[str, Any], name: str) -> None:
    said = refusal({**row, name.split(".")[0]: VERDICTS[name]})
    assert f" {name} may say that an answer is bad; data.format=" in said
    assert "label" in said
