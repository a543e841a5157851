"""docs/data.md names every format as the registry describes it."""

from __future__ import annotations

from pathlib import Path

from align.data.formats import BUILT_IN

PAGE = Path(__file__).resolve().parents[3] / "docs/data.md"


def test_the_page_has_every_format() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert rows == [f"| `{format.name}` | {format.description} | {format.polarity} |" for format in BUILT_IN]
