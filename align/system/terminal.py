"""Text of models, data and names shown in a terminal, on which it must not act."""

from __future__ import annotations

__all__ = ["visible"]

_KEPT = frozenset("\n\t\u3000\u00a0\u200c\u200d")
"""Line breaks, blanks, and what joins letters or not: harmless, though Python does not call them printable."""


def visible(text: str) -> str:
    """Return text in which every other character that is not printable is written as an escape.

    Those are control characters, with which a text moves the cursor or names the window, marks that turn the direction
    of what follows, characters of private use, and lone surrogates, which cannot be written at all.
    """
    return "".join(c if c.isprintable() or c in _KEPT else ascii(c)[1:-1] for c in text)
