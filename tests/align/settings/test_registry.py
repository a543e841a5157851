"""Names that several packages register."""

from __future__ import annotations

from collections.abc import Generator
from importlib.metadata import EntryPoint
from types import SimpleNamespace
from typing import Any

import pytest

from align.settings import registry


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> Generator[list[Any]]:
    found: list[Any] = []
    monkeypatch.setattr(registry, "entry_points", lambda *, group: found if group == "align.methods" else [])
    registry._registered.cache_clear()
    yield found
    registry._registered.cache_clear()


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
