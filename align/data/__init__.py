"""Preference data: many formats read into one pairwise format, and tokenised once."""

from __future__ import annotations

from align.data.examples import TokenizedPreferences, tokenize
from align.data.preferences import Preferences, leaked_prompts
from align.data.schema import Example, Unit
from align.data.tally import LoadReport

__all__ = ["Example", "LoadReport", "Preferences", "TokenizedPreferences", "Unit", "leaked_prompts", "tokenize"]
