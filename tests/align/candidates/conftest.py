"""Forty prompts, drawn for in chunks of eight."""

from __future__ import annotations

import pytest

from align.candidates import drawing as candidates
from align.data import Preferences


@pytest.fixture
def data(pair_rows: list[dict[str, str]]) -> Preferences:
    return Preferences.from_rows(pair_rows)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "_CHUNK", 8)
