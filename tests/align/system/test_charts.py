"""The frame of every chart: panels row by row, and a picture only of a block that ended well."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from align.system.charts import chart, svg_chart


def test_panels_come_row_by_row_and_the_picture_has_its_size(tmp_path: Path) -> None:
    from matplotlib.image import imread

    with chart(tmp_path / "a.png", (4, 3), rows=2, columns=3) as axes:
        places = [axis.get_subplotspec() for axis in axes]
        assert [(p.rowspan.start, p.colspan.start) for p in places] == [(r, c) for r in range(2) for c in range(3)]
        assert all(axis.get_axisbelow() is True for axis in axes)
        assert not (tmp_path / "a.png").exists()
    assert imread(tmp_path / "a.png").shape[:2] == (360, 480)  # 120 dots per inch
    with chart(tmp_path / "one.png", (1, 1)) as axes:
        assert len(axes) == 1


def test_what_is_written_beside_the_axes_is_inside_the_picture(tmp_path: Path) -> None:
    with chart(tmp_path / "a.png", (3, 2)) as (axis,):
        axis.plot([1, 2], [0.12345, 0.12346])
        axis.set_ylabel("value")
        axis.set_xlabel("step")
    box, whole = axis.get_tightbbox(), axis.figure.bbox
    assert whole.x0 <= box.x0 < box.x1 <= whole.x1
    assert whole.y0 <= box.y0 < box.y1 <= whole.y1


def test_a_block_that_fails_leaves_no_picture(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no data"), chart(tmp_path / "a.png", (1, 1)):
        raise ValueError("no data")
    assert not list(tmp_path.iterdir())


def test_an_svg_takes_the_width_and_the_text_colour_of_its_page() -> None:
    def draw(axis: Any) -> None:
        axis.plot([1, 2], [3, 4], color="#3b82c4")
        axis.set_title("a & b\u202e", parse_math=False)

    found = svg_chart(draw, (4, 2))
    assert found.startswith("<svg")
    assert " width=" not in found.partition(">")[0]
    assert "currentColor" in found
    assert "#010203" not in found
    assert "a &amp; b\\u202e" in found
    assert not re.findall(r'id="(figure|axes)_', found)  # a page has several
    used = {name for pair in re.findall(r'url\(#([^)]*)\)|href="#([^"]*)"', found) for name in pair if name}
    assert used
    assert all(f'id="{name}"' in found for name in used)
