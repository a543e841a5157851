"""Objects of the user's by the name of their file or module."""

from __future__ import annotations

from pathlib import Path

import pytest

from align.errors import UserError
from align.system.user_code import import_named


def test_a_dataclass_with_late_annotations_is_found(tmp_path: Path) -> None:
    """Which looks for its module among those imported."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom typing import ClassVar\n"
        "@dataclass\nclass Mine:\n    n: int = 3\n    kind: ClassVar[str] = 'x'\n"
    )
    assert import_named(f"{file}:Mine", "method")().n == 3
    assert import_named("fractions:Fraction", "method")(1, 2) == 0.5


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("Mine", "method: 'Mine' must be path/to/file.py:name or package.module:name."),
        ("absent.py:Mine", "there is no file absent.py"),
        ("absent_package:Mine", "No module named 'absent_package'"),
        ("fractions:Mine", "has no attribute 'Mine'"),
    ],
)
def test_what_cannot_be_imported_is_named(place: str, says: str) -> None:
    with pytest.raises(UserError) as error:
        import_named(place, "method")
    assert says in str(error.value)
