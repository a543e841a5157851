"""Tables of twenty-four rows with columns that no format reads, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from align.data import Preferences
from align.data.load_report import LoadReport
from align.errors import UserError
from tests.align.data.formats.tables import messages, sharegpt

Cell = Callable[[int], Any]
ROWS = 24


def table(cells: dict[str, Any], count: int = ROWS) -> list[dict[str, Any]]:
    """Rows of these columns; a function gives the value of each row."""
    return [{name: cell(i) if callable(cell) else cell for name, cell in cells.items()} for i in range(count)]


def loaded(cells: dict[str, Any], **options: Any) -> LoadReport:
    return Preferences.from_rows(table(cells), **options).report


def refusal(cells: dict[str, Any], **options: Any) -> str:
    with pytest.raises(UserError) as error:
        loaded(cells, **options)
    assert str(error.value).count("\n") < 3
    return str(error.value)


def prose(i: int) -> str:
    return f"The bridge number {i} was built a long time ago"


ANSWER: dict[str, Any] = {"prompt": lambda i: f"question {i}", "completion": lambda i: f"answer {i}"}
PAIR: dict[str, Any] = {"prompt": lambda i: f"question {i}", "chosen": prose, "rejected": lambda i: f"answer {i}"}


def turns(i: int) -> list[dict[str, str]]:
    return sharegpt(("human", f"question {i}"), ("gpt", f"answer {i}"))


def chat(i: int) -> list[dict[str, str]]:
    return messages(("user", f"question {i}"), ("assistant", f"answer {i}"))
