"""Writes the matrix into docs/correctness.md when it is asked to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.equivalence.matrix import table

PAGE = Path(__file__).parents[2] / "docs" / "correctness.md"


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("--write-figures", default=False):
        page = PAGE.read_text(encoding="utf-8")
        text = f"<!-- equivalence -->\n{table()}\n<!-- end -->"
        page, replaced = re.subn(r"<!-- equivalence -->\n.*?<!-- end -->", lambda _: text, page, flags=re.DOTALL)
        assert replaced == 1
        PAGE.write_text(page, encoding="utf-8")
