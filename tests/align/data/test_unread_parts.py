"""Columns beside pairs that look like a part of the prompt."""

from __future__ import annotations

from typing import Any

import pytest

from align.data import Preferences
from align.errors import UserError
from tests.align.data.formats.tables import messages
from tests.align.data.unread_columns import PAIR, ROWS, loaded, prose, refusal, table

PARTS: dict[str, Any] = {
    **dict.fromkeys(("passage", "article", "background", "title", "post", "code", "zz", "sql_schema"), prose),
    "persona": lambda i: f"pirate {i}",
    "schema": lambda i: f"T(a{i})",
    "documents": lambda i: [prose(i)],
    "choices": ["Paris", "Rome"],
    "memory": lambda i: messages(("user", f"Hi {i}")),
    "topic": lambda i: prose(i) * 3,
    "table": [[1, "x"]],
    "info.text": lambda i: {"text": prose(i)},
    "sometimes": lambda i: prose(i) if i > ROWS - 3 else None,
    "keyword": lambda i: f"word{i}",
    "sentence1": lambda i: f"He goes {i}",
    "concepts": lambda i: [f"dog{i}", "cat"],
    "grid": lambda i: [["a"], [f"b{i}"]],
    "apis": [{"name": "search", "description": "d"}],
    "available": lambda i: [{"name": f"f{i}", "parameters": {}}],
    "photo": lambda i: f"images/{i}.png",
    "sound_file": lambda i: f"{i}.wav",
    "source": lambda i: prose(i) * 2,
    "metadata.system_prompt": lambda i: {"system_prompt": prose(i)},
    "clinical_note": prose,
}


@pytest.mark.parametrize("name", PARTS)
def test_what_may_be_a_part_of_the_prompt_is_refused_beside_pairs(name: str) -> None:
    said = refusal({**PAIR, name.split(".")[0]: PARTS[name]})
    assert f"As pairwise it would lose {name}, which looks like a part of the data" in said


def test_text_beside_an_instruction_is_its_rendering_or_rejects_the_row() -> None:
    row: dict[str, Any] = {"instruction": lambda i: f"Classify {i}.", "output": "good"}
    assert loaded({**row, "text": lambda i: f"### Instruction: Classify {i}.\n### Response: good"}).kept == ROWS
    assert "`text` is not the instruction with its answer; if it belongs to the prompt, call it `input`" in refusal(
        {**row, "text": prose}
    )
    assert loaded({**row, "text": prose}, columns={"input": "text"}).kept == ROWS


@pytest.mark.parametrize("before", ["none", "n/a", "-", "x"])
def test_a_placeholder_that_becomes_a_text_in_late_rows(before: str) -> None:
    rows = table({**PAIR, "details": before}, 1010)
    rows[1004:] = table({**PAIR, "details": prose}, 6)
    with pytest.raises(UserError, match="it would lose details"):
        Preferences.from_rows(rows)


def test_the_mapping_of_a_refusal_keeps_a_passage() -> None:
    cells = {**PAIR, "passage": prose}
    assert "data.columns='{instruction: prompt, input: passage}'" in refusal(cells)
    data = Preferences.from_rows(table(cells), columns={"instruction": "prompt", "input": "passage"})
    assert data[3]["prompt"][0]["content"] == f"question 3\n{prose(3)}"
    assert loaded(cells, format="pairwise").kept == ROWS
