"""Each check finds the fault that it is for, and none finds one in a run without faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from align.doctor.check import Finding, examine
from align.doctor.checks import CHECKS, FREE
from align.errors import UserError
from methods import DPO, SFT
from tests.align.doctor import faults_of_machine, faults_of_text, faults_of_weights
from tests.align.doctor.conftest import Make
from tests.align.doctor.faults import BY_NAME, Ward

FAULTS = faults_of_machine.FAULTS | faults_of_text.FAULTS | faults_of_weights.FAULTS


def test_every_check_has_its_fault() -> None:
    assert set(FAULTS) == set(BY_NAME)
    assert len(BY_NAME) == len(CHECKS) >= 25


@pytest.mark.parametrize("name", BY_NAME)
def test_a_fault_is_found(
    name: str, make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path
) -> None:
    put_in, said = FAULTS[name]
    finding = BY_NAME[name].find(put_in(Ward(make, monkeypatch, tmp_path, tiny_model)))
    assert finding.state == "wrong", finding
    assert said in finding.says, finding.says
    assert finding.says.endswith((".", "?")), finding.says


@pytest.mark.parametrize("settings", [{}, {"method": SFT()}, {"method": DPO(), "adapter": None}], ids=str)
def test_a_run_without_faults(make: Make, settings: dict[str, Any]) -> None:
    findings = list(examine(make(**settings), CHECKS))
    assert [finding for finding in findings if finding.state == "wrong"] == []
    skipped = {finding.name for finding in findings if finding.state == "skipped"}
    assert skipped - {"W&B", "versions", "reference", "sharding"} == set()


def test_what_needs_a_part_that_failed_is_not_reached(make: Make) -> None:
    def fail() -> Any:
        raise UserError("model.name=x: gone.")

    patient = make(parts={"architecture": fail})
    found = {finding.name: finding for finding in examine(patient, CHECKS)}
    assert found["architecture"] == Finding("architecture", "wrong", "model.name=x: gone.")
    assert [one.name for one in found.values() if one.state == "wrong"] == ["architecture"]
    assert found["layout"].says == "not reached: there is no architecture"
    assert found["round trip"].state == "good"


def test_the_trial_changes_no_parameter(make: Make) -> None:
    patient = make(method=SFT())
    before = {name: p.detach().clone() for name, p in patient.policy.parameters(("policy",)).items()}
    assert patient.trial.result.grad_norm > 0
    assert all(torch.equal(p, before[name]) for name, p in patient.policy.parameters(("policy",)).items())


def test_the_free_checks_need_no_weights(make: Make) -> None:
    def fail() -> Any:
        raise AssertionError("asked for")

    patient = make(parts={"architecture": fail, "policy": fail, "scores": fail})
    assert {finding.state for finding in examine(patient, FREE)} <= {"good", "skipped"}
    assert len(FREE) >= 15
