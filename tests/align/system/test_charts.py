"""The frame of every chart: panels row by row, and a picture only of a block that ended well."""

from __future__ import annotations

from pathlib import Path

import pytest

from align.system.charts import chart


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


def test_a_block_that_fails_leaves_no_picture(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no data"), chart(tmp_path / "a.png", (1, 1)):
        raise ValueError("no data")
    assert not list(tmp_path.iterdir())
