"""Pairs that a tiny ranker learns to tell apart."""

from __future__ import annotations

from typing import Any

WORDS = ("red", "blue", "green", "black", "white", "grey", "pink", "brown")


def rows(count: int = 24) -> list[dict[str, Any]]:
    """Pairs whose preferred response begins with ``+``, the other one with ``-``."""
    return [
        {"prompt": f"Say {i}", "chosen": f"+{WORDS[i % 8]}", "rejected": f"-{WORDS[i % 5]}", "source": "s"}
        for i in range(count)
    ]
