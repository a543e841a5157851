"""A console of `rich` on which text of models, data and names is text."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from align.system.terminal import visible

__all__ = ["PlainConsole"]


class PlainConsole(Console):
    """Shows strings, also those in tables, as they are: no markup and no emoji codes; see :func:`visible`."""

    def render_str(self, text: str, **settings: Any) -> Text:
        """Return the string as a text, which rich does with all strings it is given."""
        plain: dict[str, Any] = {**settings, "markup": False, "emoji": False, "highlight": False}
        return super().render_str(visible(text), **plain)
