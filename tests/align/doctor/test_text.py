"""Checks of data, tokens and the plan: what they say beside the fault that each is for."""

from __future__ import annotations

import pytest

from align.doctor.patient import Patient
from tests.align.doctor.conftest import Make, with_sample
from tests.align.doctor.faults import BY_NAME


def test_answers_need_positions_too(make: Make) -> None:
    asked = {"trainer": {"max_length": 256}, "evaluation": {"max_new_tokens": 254}}
    assert "leaves no room for a prompt" in BY_NAME["positions"].find(make(**asked)).says
    asked["evaluation"]["prompts"] = 0
    assert BY_NAME["positions"].find(make(**asked)).state == "good"


def test_answers_that_were_cut_off_when_they_were_drawn(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The template is not what they lack."""
    patient = with_sample(make(), responses=[[10, 11], [12, 13]])
    said = BY_NAME["end of turn learnt"].find(patient).says
    assert "take a chat template" in said
    rows = [{**patient.train[i], "drawn_with": "x"} for i in range(len(patient.train))]
    monkeypatch.setattr(Patient, "train", rows)
    said = BY_NAME["end of turn learnt"].find(patient).says
    assert "they were cut off when they were drawn; draw longer ones (max_new_tokens)" in said
