"""Checks of data, tokens and the plan: what they say beside the fault that each is for."""

from __future__ import annotations

from tests.align.doctor.conftest import Make
from tests.align.doctor.faults import BY_NAME


def test_answers_need_positions_too(make: Make) -> None:
    asked = {"trainer": {"max_length": 256}, "evaluation": {"max_new_tokens": 254}}
    assert "leaves no room for a prompt" in BY_NAME["positions"].find(make(**asked)).says
    asked["evaluation"]["prompts"] = 0
    assert BY_NAME["positions"].find(make(**asked)).state == "good"
