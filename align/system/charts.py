"""The frame of every chart: a figure without a display, light grids, and the file it is written to."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def chart(picture: Path, size: tuple[float, float], *, rows: int = 1, columns: int = 1) -> Generator[list[Any]]:
    """Yield the axes to draw on, row by row; the picture is written when the block ends without an exception.

    Args:
        picture: The file.
        size: Width and height in inches.
        rows: Rows of panels.
        columns: Columns of panels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes: list[Any] = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.set_axisbelow(True)
    yield axes
    figure.savefig(picture, dpi=120)
