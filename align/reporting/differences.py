"""Two answers side by side, with the words marked in which they differ."""

from __future__ import annotations

import re

from markupsafe import Markup
from rapidfuzz.distance import Indel

from align.system.terminal import visible

__all__ = ["differences"]

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+|\s+|.", re.DOTALL)
"""Scripts without blanks are compared letter by letter."""
_DELETED, _INSERTED = Markup("<del>{}</del>"), Markup("<ins>{}</ins>")


def differences(before: str, after: str) -> tuple[Markup, Markup]:
    """Return both texts for a page: what only the first has in ``<del>``, what only the second has in ``<ins>``."""
    old, new = _WORD.findall(before), _WORD.findall(after)
    left, right = Markup(), Markup()
    for part in Indel.opcodes(old, new):
        gone = visible("".join(old[part.src_start : part.src_end]))
        come = visible("".join(new[part.dest_start : part.dest_end]))
        left += gone if part.tag == "equal" else _DELETED.format(gone) if gone else ""
        right += come if part.tag == "equal" else _INSERTED.format(come) if come else ""
    return left, right
