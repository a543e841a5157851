"""Checks of the machine, the settings and the run folder: what they say beside the fault that each is for."""

from __future__ import annotations

import pytest

from tests.align.doctor.conftest import Make
from tests.align.doctor.faults import BY_NAME


def test_wandb_that_the_environment_turns_off(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    finding = BY_NAME["W&B"].find(make(trackers=("wandb",)))
    assert finding.state == "wrong"
    assert "WANDB_MODE" in finding.says
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert BY_NAME["W&B"].find(make(trackers=("wandb",))).state == "good"
