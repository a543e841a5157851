"""A bar with the time left for a phase that takes longer than a few seconds."""

from __future__ import annotations

import os
from typing import Any

from tqdm import tqdm

__all__ = ["progress"]

_DELAY = 2  # seconds without a bar


def progress(what: str, total: int, unit: str) -> tqdm[Any]:
    """Return a bar, which the first process shows once the phase has taken a while, and removes at its end."""
    hidden = os.environ.get("RANK", "0") != "0"
    return tqdm(desc=what, total=total, unit=unit, delay=_DELAY, leave=False, disable=hidden)
