"""Suggestions for mistyped words."""

from __future__ import annotations

import pytest

from align.errors import UserError, did_you_mean


@pytest.mark.parametrize(
    ("word", "answer"),
    [("betta", ' Did you mean "beta"?'), ("BETA", ' Did you mean "beta"?'), ("learning_rate", ""), ("", "")],
)
def test_did_you_mean(word: str, answer: str) -> None:
    assert did_you_mean(word, ["alpha", "beta", "gamma"]) == answer
    assert did_you_mean(word, []) == ""


def test_user_error_is_a_value_error() -> None:
    assert issubclass(UserError, ValueError)
