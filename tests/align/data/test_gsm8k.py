"""GSM8K: the official files as demonstrations with answers to verify, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from align.data import Preferences
from align.errors import UserError

QUESTION = "Ann has 3 bags of 400 nuts and gives 200 away. How many are left?"
STEPS = "She has 3*400=<<3*400=1200>>1200 nuts.\nShe keeps 1200-200=<<1200-200=1000>>1000."
GOOD = {"question": QUESTION, "answer": f"{STEPS}\n#### 1,000"}


def test_a_question_becomes_a_demonstration_with_its_answer() -> None:
    loaded = Preferences.from_rows([GOOD])
    assert loaded.report.rule == "gsm8k"
    assert not loaded.report.warnings
    row = loaded[0]
    assert row["prompt"] == [{"role": None, "content": QUESTION}]
    assert row["chosen"] == [{"role": None, "content": f"{STEPS}\n#### 1,000"}]
    assert (row["rejected"], row["answer"], row["source"]) == (None, "1000", "gsm8k")
    assert row["prompt_id"] == Preferences.from_rows([{"prompt": QUESTION}])[0]["prompt_id"]


@pytest.mark.parametrize(
    ("written", "answer"),
    [("7", "7"), ("-7", "-7"), ("1,234,567", "1234567"), ("5.25", "5.25"), ("10000", "10000"), ("7 \n", "7")],
)
def test_numbers(written: str, answer: str) -> None:
    assert Preferences.from_rows([{"question": QUESTION, "answer": f"Steps.\n#### {written}"}])[0]["answer"] == answer


def test_shared_columns_pass_through() -> None:
    row = Preferences.from_rows([GOOD | {"prompt_id": "p1", "source": "mine", "weight": 2}])[0]
    assert (row["prompt_id"], row["source"], row["weight"], row["answer"]) == ("p1", "mine", 2.0, "1000")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answer": STEPS}, "the solution has no #### answer"),
        ({"answer": f"{STEPS} #### 7"}, "the solution has no #### answer"),
        ({"answer": " \n#### 7"}, "the solution has no steps"),
        ({"answer": f"{STEPS}\n#### seven"}, r"#### is not followed by a number"),
        ({"answer": f"{STEPS}\n#### 7\n#### "}, r"#### is not followed by a number"),
        ({"answer": f"{STEPS}\n#### 10,00"}, r"#### is not followed by a number"),
        ({"answer": f"{STEPS}\n#### ٧"}, r"#### is not followed by a number"),
        ({"answer": f"{STEPS}\n#### 7 nuts"}, r"#### is not followed by a number"),
        ({"answer": 7}, "answer is not a solution"),
        ({"answer": None}, "answer is not a solution"),
        ({"question": ""}, "empty prompt"),
        ({"question": None}, "prompt is null"),
        ({"question": 7}, "prompt is not text or messages"),
        ({"question": "half \ud83d"}, "lone surrogate"),
    ],
)
def test_bad_rows_are_counted_with_their_place(change: dict[str, Any], reason: str) -> None:
    rows = [GOOD, GOOD | {"question": "Another?"}, GOOD | change]
    report = Preferences.from_rows(rows, max_rejected=0.5).report
    assert (report.kept, report.rejected) == (2, {reason: 1})
    assert report.examples[reason][0].startswith("rows:3: ")
    with pytest.raises(UserError, match=f"1 {reason}"):
        Preferences.from_rows(rows)


def test_a_column_missing_in_a_late_row() -> None:
    rows = [GOOD, GOOD | {"question": "Another?"}, {"question": "Why?"}]
    assert Preferences.from_rows(rows, max_rejected=0.5).report.rejected == {"missing column": 1}


def test_questions_with_other_answers_are_not_taken_for_it() -> None:
    """Without #### it is some other file, perhaps one whose `answer` is a letter; its name can still be given."""
    rows = [{"question": "Why?", "answer": "Because."}]
    with pytest.raises(UserError, match="no known format fits the columns"):
        Preferences.from_rows(rows)
    with pytest.raises(UserError, match="the solution has no #### answer"):
        Preferences.from_rows(rows, format="gsm8k")
    with pytest.raises(UserError, match="no known format fits the columns"):
        Preferences.from_rows([GOOD | {"rejected_response": "7"}])
    # Beside answers of its own it is the answer to verify.
    assert Preferences.from_rows([GOOD | {"chosen": STEPS, "rejected": "7"}]).report.rule == "orca-pairs"


@pytest.mark.parametrize(("name", "count"), [("train", 7473), ("test", 1319)])
def test_official_files(name: str, count: int, shared: Path) -> None:
    loaded = Preferences.load(shared / f"data/gsm8k/{name}.jsonl", expected_rows=count, max_rejected=0)
    assert (loaded.report.rule, len(loaded)) == ("gsm8k", count)
    assert all(answer.lstrip("-").isdecimal() for answer in loaded.dataset["answer"])
    assert len(set(loaded.dataset["prompt_id"])) == count
    for row in loaded.select(range(0, count, 100)):
        assert row["chosen"][0]["content"].replace(",", "").endswith(f"\n#### {row['answer']}")
