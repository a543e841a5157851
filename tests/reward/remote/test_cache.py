"""The answers of a judge on disk."""

from __future__ import annotations

from pathlib import Path

from reward.remote.cache import AnswerCache


def test_a_question_is_its_value_and_not_how_it_is_written() -> None:
    """Of ``["u", {"a": 1, "b": "é"}]`` as JSON with sorted keys: the sha256 of other programs too."""
    key = AnswerCache.key(["u", {"b": "é", "a": 1}])
    assert key == AnswerCache.key(["u", {"a": 1, "b": "é"}])
    assert key != AnswerCache.key(["u", {"a": 1, "b": "e"}])
    assert AnswerCache.key([1]) == "080a9ed428559ef602668b4c00f114f1a11c3f6b02a435f0bdc154578e4d7f22"  # of "[1]"


def test_an_answer_is_found_again_by_others_and_the_last_one_counts(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "cache.sqlite"
    one, other = AnswerCache(file), AnswerCache(file)
    assert one.get("k") is None
    one.put("k", "first")
    assert (other.get("k"), other.get("l")) == ("first", None)
    other.put("k", "second")
    other.put("l", "")
    assert (one.get("k"), one.get("l")) == ("second", "")
    assert AnswerCache(file).get("k") == "second"
