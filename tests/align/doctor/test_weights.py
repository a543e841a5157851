"""Checks of the model and a trial step: what they say beside the fault that each is for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.align.doctor.conftest import Make
from tests.align.doctor.faults import BY_NAME


def test_what_each_process_would_keep_is_told(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    patient = make(trainer={"sharding": "full"})
    size, shared = (
        patient.skeleton.size.total,
        2 * (3 * 32 * 48 + 2 * 32 * 32 + 2 * 32 * 16),
    )  # the layers
    monkeypatch.setattr("align.doctor.weights.readable", lambda amount: f"{amount:.0f} bytes")
    alone = BY_NAME["sharding"].find(patient)
    assert alone.state == "good"
    assert f"each of 2 that torchrun starts would keep {4 * (size - shared / 2):.0f} bytes" in alone.says
    assert f"each of 8 {4 * (size - shared * 7 / 8):.0f} bytes" in alone.says
    monkeypatch.setattr("align.model.sharding.process_state", lambda: SimpleNamespace(num_processes=4))
    together = BY_NAME["sharding"].find(patient)
    assert together.says == (
        f"full: each process keeps {4 * (size - shared * 3 / 4):.0f} bytes of the {4 * size} bytes of the base"
    )
