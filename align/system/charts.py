"""The frame of every chart: a figure without a display, light grids, and the file it is written to."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from markupsafe import Markup

from align.system.terminal import visible

COLOURS = (
    "#3b82c4",
    "#d97706",
    "#2f9e62",
    "#c2417c",
    "#7c5cd6",
    "#0e8f9c",
    "#a16207",
    "#6b7280",
    "#dc2626",
    "#65a30d",
)
"""Of lines and points, on a light ground and on a dark one."""
_INK = "#010203"
"""An SVG is drawn in this, and then in the colour of the page's text, light or dark."""


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

    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    axes: list[Any] = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.set_axisbelow(True)
    yield axes
    _lay_out(figure)
    figure.savefig(picture, dpi=120)


def svg_chart(draw: Callable[[Any], None], size: tuple[float, float]) -> Markup:
    """Return what ``draw`` draws on an axis as SVG for a page, whose text colour and width it takes.

    Args:
        draw: Draws on the axis it is given.
        size: Width and height in inches.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    names = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    style: Any = {
        **dict.fromkeys(names, _INK),
        "svg.fonttype": "none",
        "svg.hashsalt": "align",
        "font.family": "sans-serif",
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=size)
        figure.patch.set_alpha(0)
        FigureCanvasSVG(figure)
        axis: Any = figure.subplots()
        axis.patch.set_alpha(0)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        draw(axis)
        _lay_out(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = visible(buffer.getvalue())
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text[text.index("<svg") :], count=1)
    text = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", text)  # of groups: a page has several charts
    return Markup(text.replace(_INK, "currentColor"))


def _lay_out(figure: Any) -> None:
    """Make room for what is written beside the axes.

    A figure with a layout of its own does so twice, and is drawn for nothing in between.
    """
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    ConstrainedLayoutEngine().execute(figure)
