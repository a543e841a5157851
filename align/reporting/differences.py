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
    for kind, a, b, c, d in Indel.opcodes(old, new):
        gone, come = visible("".join(old[a:b])), visible("".join(new[c:d]))
        left += gone if kind == "equal" else _DELETED.format(gone) if gone else ""
        right += come if kind == "equal" else _INSERTED.format(come) if come else ""
    return left, right
