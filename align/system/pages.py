"""The frame of every page that is written: HTML that needs nothing else, asks for nothing and runs no script.

Texts of models, data and names are shown as text: escaped, and with control characters and marks that turn the
direction of writing as escapes (:func:`align.system.terminal.visible`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from align.system.terminal import visible

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["breakable", "duration", "pages"]


def pages(folder: Path) -> Environment:
    """Return what renders the templates of a folder, which extend ``frame.html.jinja`` beside this module.

    The frame has the style of all pages, light and dark, and a content security policy against scripts and requests.
    Its blocks: ``style`` for rules of one page, and ``content``. Filters: ``breakable``, ``duration``.
    """
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {"breakable": breakable, "duration": duration}
    return environment


def breakable(label: str) -> Markup:
    """Return a label that may go on in the next line before each of its settings."""
    return Markup(":<wbr>").join(visible(label).split(":"))


def duration(seconds: float) -> str:
    """Return minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _shown(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
