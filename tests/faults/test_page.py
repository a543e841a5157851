"""docs/reliability.md: each fault names tests, and they exist."""

from __future__ import annotations

import ast
import re

import pytest

from tests.forked import ROOT

PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
FAULTS = PAGE.partition("| Measured |")[0].splitlines()
ROWS = [line for line in FAULTS if line.startswith("| ") and not line.startswith("| Fault ")]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split(" | ")[0][2:50])
def test_each_fault_names_tests_that_exist(row: str) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
    assert named
    for file, name in named:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, (
            f"{file} has no {name}"
        )


def test_the_table_is_there() -> None:
    assert len(ROWS) > 20
