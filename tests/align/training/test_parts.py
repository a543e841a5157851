"""The state of training all parameters, written in parts; several ranks: test_sharded_training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

from align.errors import UserError
from align.model.policy import Policy
from align.settings.config import TrainerConfig
from align.training import optimizer as module
from align.training.optimizer import make_optimizer, make_schedule, save_settings
from align.training.parts import load_parts, save_parts

ROLES = ("policy", "value")


def trained(model: Path, steps: int, optimizer: Any) -> tuple[Policy, Any, Any]:
    policy = Policy.load(str(model), adapter=None)
    policy.require(ROLES)
    made = make_optimizer(policy.parameters(ROLES), TrainerConfig(optimizer=optimizer), 1e-2)
    schedule = make_schedule(made, "linear", warmup=0, steps=9)
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        for parameter in policy.parameters(ROLES).values():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        made.step()
        schedule.step()
    return policy, made, schedule


@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop", "sgd"])
def test_what_is_written_is_read_back(optimizer: str, tiny_model: Path, tmp_path: Path) -> None:
    policy, made, schedule = trained(tiny_model, 2, optimizer)
    save_parts(policy, ROLES, made, tmp_path)
    save_settings(made, schedule, tmp_path)
    assert {file.suffix for file in (tmp_path / "parts").iterdir()} == {".safetensors"}
    other, other_made, other_schedule = trained(tiny_model, 0, optimizer)
    load_parts(other, ROLES, other_made, other_schedule, tmp_path)
    theirs = other.parameters(ROLES)
    assert all(torch.equal(parameter, theirs[name]) for name, parameter in policy.parameters(ROLES).items())
    ours, again = made.state_dict(), other_made.state_dict()
    assert json.loads(json.dumps(ours["param_groups"])) == json.loads(json.dumps(again["param_groups"]))
    assert ours["state"].keys() == again["state"].keys()
    for number, state in ours["state"].items():
        assert state.keys() == again["state"][number].keys()
        assert all(v is None or torch.equal(v, again["state"][number][name]) for name, v in state.items())
    assert schedule.state_dict() == other_schedule.state_dict()


def test_a_full_disk_is_an_error_of_the_disk(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(HuggingFaceStorageWriter, "write_data", fail)
    policy, made, _ = trained(tiny_model, 1, "adamw")
    with pytest.raises(OSError, match="No space left"):
        save_parts(policy, ROLES, made, tmp_path)


def test_an_optimiser_of_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_shared", lambda _: True)
    parameters = {"layer": torch.nn.Parameter(torch.ones(2, 2))}
    made = make_optimizer(parameters, TrainerConfig(), 0.1)
    assert [group["foreach"] for group in made.param_groups] == [False]
    with pytest.raises(UserError, match=r"trainer\.optimizer=adamw_8bit cannot train all parameters"):
        make_optimizer(parameters, TrainerConfig(optimizer="adamw_8bit"), 0.1)
