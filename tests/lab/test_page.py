"""docs/correctness.md has a table for every module of the lab, with the bounds that its tests assert."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs" / "correctness.md").read_text(encoding="utf-8")
TABLES = dict(re.findall(r"<!-- (test_\w+) -->\n(.*?)<!-- end -->", PAGE, re.DOTALL))


def test_every_module_has_its_table() -> None:
    modules = {file.stem for file in HERE.glob("test_*.py")} - {"test_page"}
    assert set(TABLES) == modules
    assert all(table.startswith("| What | Expected |") for table in TABLES.values()), "run make correctness"


def test_no_figure_is_beyond_its_bound() -> None:
    for table in TABLES.values():
        for row in table.splitlines()[2:]:
            *_, difference, bound = (cell.strip() for cell in row.strip("|").split("|"))
            assert not bound or float(difference) <= float(bound), row
