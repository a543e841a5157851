"""Words in which two answers differ, by hand."""

from __future__ import annotations

import pytest

from align.reporting.differences import differences


@pytest.mark.parametrize(
    ("before", "after", "left", "right"),
    [
        ("same", "same", "same", "same"),
        ("On Monday.", "On Tuesday.", "On <del>Monday</del>.", "On <ins>Tuesday</ins>."),
        ("Yes.", "Yes. Gladly.", "Yes.", "Yes.<ins> Gladly.</ins>"),
        ("", "a", "", "<ins>a</ins>"),
        ("a", "", "<del>a</del>", ""),
        ("今日は雨", "今日は雪", "今日は<del>雨</del>", "今日は<ins>雪</ins>"),
        ("<b>", "<i>", "&lt;<del>b</del>&gt;", "&lt;<ins>i</ins>&gt;"),
        ("a\x1b", "a\u202e", "a<del>\\x1b</del>", "a<ins>\\u202e</ins>"),
    ],
)
def test_words_are_marked_where_they_differ(before: str, after: str, left: str, right: str) -> None:
    assert differences(before, after) == (left, right)
