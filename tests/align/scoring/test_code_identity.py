"""The identity of code: whatever a function's scores depend on changes its hash, and nothing else does."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from align.scoring.identity import code_hash, file_code_hash, model_identity, scorer_identity, settings_identity
from align.system.identity import content_hash

NUMBER = count()


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Import ``score`` of a module with this text, beside modules with those texts, each time from a new folder."""
    before = set(sys.modules)

    def make(text: str, others: dict[str, str] | None = None) -> Any:
        folder = tmp_path / f"folder{next(NUMBER)}"
        for name, content in {"rewards.py": text, **(others or {})}.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        for name in set(sys.modules) - before:
            del sys.modules[name]
        importlib.invalidate_caches()
        with monkeypatch.context() as patch:
            patch.syspath_prepend(folder)
            return importlib.import_module("rewards").score

    yield make
    for name in set(sys.modules) - before:
        del sys.modules[name]


CODE = """
import functools
LIMIT = 1
LIMIT = LIMIT + 1
SCALE: float = 2.0
def helper(x): return x * SCALE
def unused(): return 0
class Kept:
    def scaled(self, x): return helper(x)
def score(x, base=3, *, by=4):
    def inner(y):
        return y if y > LIMIT else Kept().scaled(y)
    return inner(x) + base * by
"""


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("base=3", "base=5", True),
        ("by=4", "by=5", True),
        ("LIMIT = 1\n", "LIMIT = 7\n", True),  # the first of two assignments
        ("LIMIT + 1", "LIMIT + 2", True),  # the second; used by a function inside it
        ("float = 2.0", "float = 3.0", True),  # of a function that a class it uses calls
        ("x * SCALE", "x / SCALE", True),
        ("return 0", "return 1", False),
        ("\nclass", "\n# a remark\nclass", False),
    ],
)
def test_a_function_is_all_that_it_uses(old: str, new: str, changes: bool, load: Callable[..., Any]) -> None:
    assert CODE.count(old) == 1
    before = code_hash(load(CODE))
    assert code_hash(load(CODE)) == before
    assert (code_hash(load(CODE.replace(old, new))) != before) is changes


def closing_over(value: Any) -> Callable[..., Any]:
    def used(base: Any = None) -> Any:
        return value if base is None else base

    return used


def with_default(value: Any) -> Callable[..., Any]:
    def used(base: Any = value) -> Any:
        return base

    return used


def with_keyword(value: Any) -> Callable[..., Any]:
    def used(*, base: Any = value) -> Any:
        return base

    return used


def given_in_order(value: Any) -> Any:
    return functools.partial(closing_over(0), value)


def given_by_name(value: Any) -> Any:
    return functools.partial(closing_over(0), base=value)


@pytest.mark.parametrize("make", [closing_over, with_default, with_keyword, given_in_order, given_by_name])
@pytest.mark.parametrize(("one", "other"), [(1, 2), (0.5, 0.25), ("a", "b"), (True, False)])
def test_a_function_is_the_plain_values_bound_to_it(make: Callable[[Any], Any], one: Any, other: Any) -> None:
    assert code_hash(make(one)) == code_hash(make(one))
    assert code_hash(make(one)) != code_hash(make(other))


BESIDE = [
    ("import helper\ndef score(x): return helper.weight", {"helper.py": "weight = 1"}),
    ("from helper import weight\ndef score(x): return weight()", {"helper.py": "def weight(): return 1"}),
    ("import helper\ndef score(x): return helper.weight", {"helper/__init__.py": "weight = 1"}),
    (
        "import helper\ndef score(x): return helper.weight()",
        {"helper/__init__.py": "from .deep import weight", "helper/deep.py": "def weight(): return 1"},
    ),
]


@pytest.mark.parametrize(("text", "others"), BESIDE)
def test_a_function_is_also_the_modules_and_packages_beside_it(
    text: str, others: dict[str, str], load: Callable[..., Any]
) -> None:
    before = code_hash(load(text, others))
    assert code_hash(load(text, others)) == before
    changed = {name: content.replace("1", "2") for name, content in others.items()}
    assert code_hash(load(text, changed)) != before


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("import helper", "helper.py"),
        ("import helper.deep as deep", "helper/deep.py"),
        ("import helper", "helper/__init__.py"),
        ("from helper import deep", "helper/deep.py"),
        ("from . import helper", "helper.py"),
        ("from .helper import weight", "helper.py"),
        ("def score():\n    import helper", "helper.py"),
        ("if True:\n    import other, helper", "helper.py"),
    ],
)
def test_a_file_is_also_what_it_imports_from_its_folder(text: str, place: str, tmp_path: Path) -> None:
    """Named by where it lies below the folder, not by the folder."""
    hashes: list[str] = []
    for folder, weight in (("a", 1), ("b", 1), ("b", 2)):
        file = tmp_path / folder / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"weight = {weight}")
        (tmp_path / folder / "rewards.py").write_text(text)
        (tmp_path / folder / "neighbour.py").write_text(f"weight = {weight}")
        hashes.append(file_code_hash(tmp_path / folder / "rewards.py"))
    assert hashes[0] == hashes[1] != hashes[2]


def test_modules_that_import_each_other_and_what_is_no_python(tmp_path: Path) -> None:
    (tmp_path / "rewards.py").write_text("import helper")
    (tmp_path / "helper.py").write_text("import rewards")
    both = file_code_hash(tmp_path / "rewards.py")
    (tmp_path / "helper.py").write_text("def (")
    assert file_code_hash(tmp_path / "rewards.py") != both


@dataclass(frozen=True)
class Counting:
    """A scorer of another project with a setting, a remark that changes no score, and a counter."""

    weight: Any = 1.0
    place: Path = Path("here")
    remark: str = ""
    calls: int = field(default=0, init=False)
    name: str = "counting"

    def score(self, *_: Any, **__: Any) -> Any:
        object.__setattr__(self, "calls", self.calls + 1)


def test_settings_are_the_fields_that_are_given_and_change_scores() -> None:
    scorer = Counting(weight={"a": (1, None), 2: [True, "x"]}, remark="mine")
    before = settings_identity(scorer, without=("remark", "name"))
    scorer.score()
    assert settings_identity(scorer, without=("remark", "name")) == before
    assert before == {
        "scorer": "Counting",
        "code": code_hash(Counting),
        "weight": {"a": [1, None], "2": [True, "x"]},
        "place": "here",
    }


def test_scorers_inside_are_their_identities() -> None:
    inner = Counting(weight=2.0)
    assert scorer_identity(Counting(weight=[inner]))["weight"] == [scorer_identity(inner)]
    assert scorer_identity(Counting(weight=len))["weight"] == code_hash(len)


def test_a_model_is_its_files_or_its_name_and_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"1")
    bytes_of = content_hash(tmp_path / "model")
    assert model_identity(str(tmp_path / "model")) == model_identity("~/model", "main") == bytes_of
    (tmp_path / "model" / "weights").write_bytes(b"2")
    assert model_identity("~/model") not in (bytes_of, "~/model")
    assert model_identity("owner/name") == "owner/name"
    assert model_identity("owner/name", "v1") == "owner/name@v1"
