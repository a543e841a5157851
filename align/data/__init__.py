"""Preference data: many formats read into one pairwise format, and tokenised once."""

from __future__ import annotations

from align.data.examples import TokenizedPreferences, tokenize
from align.data.load_report import LoadReport
from align.data.preferences import Preferences, leaked_prompts
from align.data.schema import Example, Unit

__all__ = ["Example", "LoadReport", "Preferences", "TokenizedPreferences", "Unit", "leaked_prompts", "tokenize"]
