"""Suggestions for mistyped words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from align import errors
from align.errors import UserError, did_you_mean, fault_of_user, first_line, slip_of


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


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("dop", "dpo"),  # exchanged
        ("dp", "dpo"),  # one missing
        ("dppo", "dpo"),  # one too many
        ("DPO", "dpo"),
        ("orpo", None),  # another letter is another method
        ("kto", None),
        ("ddpoo", None),
        ("seed2", None),
        ("seed12", None),
        ("esed1", "seed1"),
        ("", None),
    ],
)
def test_a_slip_is_not_another_name(word: str, meant: str | None) -> None:
    assert slip_of(word, ["grpo", "dpo", "seed1"]) == meant


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


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package among the installed libraries that has registered a scorer here, and one that has not."""
    for name in ("theirs_here", "theirs_elsewhere"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("def fail():\n    raise KeyError('x')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))

    def entries(group: str) -> list[Any]:
        def entry(package: str, project: str) -> Any:
            return SimpleNamespace(module=f"{package}.deep", dist=SimpleNamespace(name=project))

        found = {"align.scorers": [entry("theirs_here", "theirs")], "align.methods": [entry("methods", "align-rlhf")]}
        return found.get(group, [])

    monkeypatch.setattr("importlib.metadata.entry_points", entries)
    for cached in (errors._is_users, errors._plugins):  # pyright: ignore[reportPrivateUsage]
        cached.cache_clear()
    yield tmp_path
    for cached in (errors._is_users, errors._plugins):  # pyright: ignore[reportPrivateUsage]
        cached.cache_clear()


def test_code_of_a_package_that_registered_something_here_is_the_users(plugin: Path) -> None:
    import importlib

    for name, users in (("theirs_here", True), ("theirs_elsewhere", False)):
        fail = importlib.import_module(name).fail
        with pytest.raises(KeyError) as caught:
            fail()
        error = caught.value
        error = error.with_traceback(error.__traceback__.tb_next if error.__traceback__ else None)
        expected = f"{plugin / name / '__init__.py'}, line 2, in fail: KeyError: 'x'"
        assert fault_of_user(error) == (expected if users else None)
