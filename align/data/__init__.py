"""Preference data: many formats read into one pairwise format, and tokenised once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from align.system.lazy import lazy

if TYPE_CHECKING:
    from align.data.examples import TokenizedPreferences, tokenize
    from align.data.load_report import LoadReport
    from align.data.preferences import Preferences, leaked_prompts
    from align.data.schema import Example, Unit

__all__ = ["Example", "LoadReport", "Preferences", "TokenizedPreferences", "Unit", "leaked_prompts", "tokenize"]

__getattr__ = lazy(
    "align.data",
    {
        "Example": "align.data.schema",
        "LoadReport": "align.data.load_report",
        "Preferences": "align.data.preferences",
        "TokenizedPreferences": "align.data.examples",
        "Unit": "align.data.schema",
        "leaked_prompts": "align.data.preferences",
        "tokenize": "align.data.examples",
    },
)
