"""Names that several packages register."""

from __future__ import annotations

import sys
from collections.abc import Generator
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from align.errors import UserError
from align.settings import registry


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> Generator[list[Any]]:
    found: list[Any] = []
    monkeypatch.setattr(registry, "_CHECKOUT", Path("none"))
    monkeypatch.setattr(registry, "entry_points", lambda *, group: found if group == "align.methods" else [])
    forget()
    yield found
    forget()


def forget() -> None:
    registry._registered.cache_clear()
    registry._own.cache_clear()


def entry(package: str, name: str, value: str) -> Any:
    return SimpleNamespace(
        name=name, value=value, dist=SimpleNamespace(name=package), load=EntryPoint(name, value, "align.methods").load
    )


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_a_name_of_this_project_is_not_taken_over(entries: list[Any], order: tuple[int, ...]) -> None:
    all_entries = [
        entry("theirs", "dpo", "collections:Counter"),
        entry("align-rlhf", "dpo", "collections:OrderedDict"),
        entry("theirs", "mine", "collections:deque"),
    ]
    entries.extend(all_entries[i] for i in order)
    assert registry.load("methods", "dpo").__name__ == "OrderedDict"
    assert registry.choices("methods") == ["dpo", "mine"]
    assert registry.choices("methods", shipped=True) == ["dpo"]


def test_a_checkout_has_its_own_names_though_what_is_installed_is_older(
    entries: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = '[project]\nname = "align-rlhf"\n[project.entry-points."align.methods"]\nnew = "collections:OrderedDict"\n'
    (tmp_path / "pyproject.toml").write_text(table)
    monkeypatch.setattr(registry, "_CHECKOUT", tmp_path / "pyproject.toml")
    entries.append(entry("align-rlhf", "removed", "collections:Counter"))
    entries.append(entry("theirs", "mine", "collections:deque"))
    assert registry.choices("methods") == ["mine", "new"]
    assert registry.choices("methods", shipped=True) == ["new"]
    assert registry.load("methods", "new").__name__ == "OrderedDict"
    assert registry.choices("commands") == []


@pytest.mark.parametrize("broken", ["absent_module:X", "collections:Absent"])
def test_what_cannot_be_imported_is_named(broken: str, entries: list[Any]) -> None:
    entries.append(entry("theirs", "mine", broken))
    assert registry.choices("methods") == ["mine"]
    with pytest.raises(UserError, match=rf"^method 'mine' \({broken}\) cannot be imported: "):
        registry.load("methods", "mine")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise SystemExit('no licence')", "SystemExit: no licence"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import absent_too", "ModuleNotFoundError: No module named 'absent_too'"),
    ],
)
def test_a_module_that_fails_is_named_with_its_line(
    body: str, said: str, entries: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "failing_module", raising=False)
    (tmp_path / "failing_module.py").write_text(f"\n{body}\n")
    entries.append(entry("theirs", "mine", "failing_module:X"))
    with pytest.raises(UserError, match=rf"cannot be imported: .*failing_module\.py, line 2, in <module>: {said}"):
        registry.load("methods", "mine")


def test_an_error_that_is_no_fault_of_a_user_stays_what_it_is(entries: list[Any]) -> None:
    entries.append(SimpleNamespace(name="mine", value="a:b", dist=None, load=partial(int, "ours")))
    with pytest.raises(ValueError, match="invalid literal") as caught:
        registry.load("methods", "mine")
    assert not isinstance(caught.value, UserError)


def test_a_name_that_is_not_registered(entries: list[Any]) -> None:
    with pytest.raises(UserError, match=r"^'dpo' is not one of the methods: none is installed\.$"):
        registry.load("methods", "dpo")
    forget()
    entries.extend([entry("theirs", "zeta", "a:b"), entry("theirs", "alpha", "a:b")])
    assert registry.choices("methods") == ["alpha", "zeta"]
    assert registry.choices("methods", shipped=True) == []
    with pytest.raises(UserError, match=r"^'zta' is not one of the methods: alpha, zeta\. Did you mean \"zeta\"\?$"):
        registry.load("methods", "zta")


def test_names_of_this_project() -> None:
    assert registry.choices("methods", shipped=True) == [
        *("bco", "cispo", "cpo", "dapo", "dpo", "dr_grpo", "grpo", "gspo", "kto", "online_dpo", "orpo", "ppo"),
        *("ranker", "reinforce_pp", "reward", "rft", "rloo", "rrhf", "sft", "simpo", "slic"),
    ]
    assert registry.choices("commands", shipped=True) == [
        *("chat", "compare", "dashboard", "data", "diagnose", "doctor", "evaluate", "export", "label", "report"),
        "serve-reward",
    ]


def test_an_entry_without_a_package_is_not_ours(entries: list[Any]) -> None:
    entries.append(SimpleNamespace(name="lost", value="a:b", dist=None, load=None))
    assert (registry.choices("methods"), registry.choices("methods", shipped=True)) == (["lost"], [])
