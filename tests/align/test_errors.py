"""Suggestions for mistyped words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from align.errors import UserError, did_you_mean, fault_of_user


@pytest.mark.parametrize(
    ("word", "answer"),
    [("betta", ' Did you mean "beta"?'), ("BETA", ' Did you mean "beta"?'), ("learning_rate", ""), ("", "")],
)
def test_did_you_mean(word: str, answer: str) -> None:
    assert did_you_mean(word, ["alpha", "beta", "gamma"]) == answer
    assert did_you_mean(word, []) == ""


def test_user_error_is_a_value_error() -> None:
    assert issubclass(UserError, ValueError)


def test_the_fault_is_where_the_users_code_calls_a_library() -> None:
    with pytest.raises(ValueError, match="Expecting") as caught:
        json.loads("no")
    line = caught.traceback[0].lineno + 1
    expected = f"{__file__}, line {line}, in test_the_fault_is_where_the_users_code_calls_a_library: JSONDecodeError: "
    assert (fault_of_user(caught.value) or "").startswith(expected)


def test_a_library_alone_is_no_fault_of_the_user() -> None:
    with pytest.raises(ValueError, match="Expecting") as caught:
        json.loads("no")
    error = caught.value.with_traceback(caught.value.__traceback__.tb_next if caught.value.__traceback__ else None)
    assert fault_of_user(error) is None


def test_a_syntax_error_names_its_own_place(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    with pytest.raises(SyntaxError) as caught:
        compile("def f(:\n", str(file), "exec")
    assert fault_of_user(caught.value) == f"{file}, line 1: SyntaxError: invalid syntax"
