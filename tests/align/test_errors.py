"""Suggestions for mistyped words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from align.errors import UserError, did_you_mean, fault_of_user, first_line


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("betta", ' Did you mean "beta"?'),
        ("BETA", ' Did you mean "beta"?'),
        ("bexx", ""),  # half of the letters are too few
        ("learning_rate", ""),
        ("", ""),
    ],
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


def inner() -> None:
    raise KeyError("missing")


def outer() -> None:
    inner()


def test_the_fault_is_in_the_inmost_function_of_the_user() -> None:
    with pytest.raises(KeyError) as caught:
        outer()
    line = inner.__code__.co_firstlineno + 1
    assert fault_of_user(caught.value) == f"{__file__}, line {line}, in inner: KeyError: 'missing'"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("One.\nTwo."), "One"),
        (ValueError("  no stop  "), "no stop"),
        (ValueError("etc..."), "etc"),
        (ValueError(), "ValueError"),
        (OSError(" \n"), "OSError"),
    ],
)
def test_the_first_line_of_an_error(error: Exception, text: str) -> None:
    assert first_line(error) == text


def test_an_error_without_a_text_is_its_type() -> None:
    with pytest.raises(LookupError) as caught:
        raise LookupError
    assert (fault_of_user(caught.value) or "").endswith(": LookupError")


def test_a_suggestion_keeps_the_case_of_the_choice() -> None:
    assert did_you_mean("math", ["Math", "Meth"]) == ' Did you mean "Math"?'
