"""Preference data: one pairwise format, many ways in, tokenised once."""

from __future__ import annotations

from align.data.checks import leaked_prompts
from align.data.preferences import Preferences
from align.data.report import LoadReport
from align.data.schema import Example, Unit
from align.data.tokenized import TokenizedPreferences

__all__ = ["Example", "LoadReport", "Preferences", "TokenizedPreferences", "Unit", "leaked_prompts"]
