"""Forty pairs for reward models."""

from __future__ import annotations

from typing import Any

import pytest

from align import Preferences


@pytest.fixture
def pairs(pair_rows: list[dict[str, Any]]) -> Preferences:
    return Preferences.from_rows(pair_rows)
