"""Runs that cannot go on: each stops before harm is done, names the place, and keeps the steps done."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file

from align import Policy, Preferences, Trainer, TrainerConfig
from align.errors import UserError
from align.settings.adapter import Adapter
from align.training.step import TrainingError
from methods import DPO
from tests.align.training.dpo_runs import Rows, largest_difference, train

pytestmark = pytest.mark.usefixtures("without_charts")


def test_max_length_beyond_the_positions_is_refused(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="256 positions"):
        train(tiny_model, pair_rows, tmp_path / "run", max_length=300)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_stops_before_the_update(
    where: str, tiny_model: Path, pair_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy.load(str(tiny_model), adapter=Adapter(r=4))
    original, calls = DPO.loss, [0]

    def broken(self: DPO, policy: Policy, batch: Any) -> Any:
        loss = original(self, policy, batch)
        calls[0] += 1
        if calls[0] == 3:  # the third step
            parameter = policy.roles.parameters("policy").values()
            poison = sum((p.sum() * 0).sqrt() if where == "gradient" else p.sum() * float("nan") for p in parameter)
            loss = type(loss)({"policy": loss.sums["policy"] + poison}, loss.metrics)
        return loss

    monkeypatch.setattr(DPO, "loss", broken)
    config = TrainerConfig(steps=5, batch_size=4, learning_rate=1e-2, max_length=200, save_steps=2, warmup=0)
    with pytest.raises(TrainingError, match=rf"the {where} is not finite.*Rows of the training data.*\d"):
        Trainer(policy, tmp_path / "run", config).fit(DPO(), Preferences.from_rows(pair_rows))
    assert all(parameter.grad is None for parameter in policy.roles.parameters("policy").values())
    saved = load_file(tmp_path / "run" / "checkpoints" / "step-00000002" / "policy" / "adapter_model.safetensors")
    current = {name.replace(".policy.", "."): p for name, p in policy.roles.peft_model.named_parameters()}  # pyright: ignore
    assert all(torch.equal(saved[name], current[name]) for name in saved)


def test_out_of_memory_names_the_setting_to_lower(
    tiny_model: Path, pair_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: Any) -> Any:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr(DPO, "loss", exhausted)
    with pytest.raises(TrainingError, match="tokens_per_microbatch=8192; lower it"):
        train(tiny_model, pair_rows, tmp_path / "run")


class Faulty(DPO):
    """Fails in one of its hooks, from some call on."""

    calls: ClassVar[dict[str, int]] = {}
    fails: ClassVar[tuple[str, int]] = ("", 0)

    def count(self, hook: str) -> None:
        self.calls[hook] = self.calls.get(hook, 0) + 1
        if (hook, self.calls[hook]) == self.fails:
            raise KeyError("mine")

    def prepare(self, policy: Policy, batch: Any) -> Any:
        self.count("prepare")
        return super().prepare(policy, batch)

    def weight(self, batch: Any) -> float:
        self.count("weight")
        return super().weight(batch)

    def loss(self, policy: Policy, batch: Any) -> Any:
        loss = super().loss(policy, batch)  # which draws the dropout
        self.count("loss")
        return loss


@pytest.mark.parametrize("hook", ["prepare", "weight", "loss"])
def test_a_method_that_fails_is_named_by_its_line_and_the_steps_done_are_saved(
    hook: str, tiny_model: Path, pair_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fourth call is in the second step or later. Who continues ends as if nothing had happened, with dropout."""
    settings: dict[str, Any] = {"adapter": Adapter(r=4, dropout=0.1), "save_steps": None, "method": Faulty()}
    monkeypatch.setattr(Faulty, "calls", {})
    _, whole = train(tiny_model, pair_rows, tmp_path / "whole", **settings)
    monkeypatch.setattr(Faulty, "calls", {})
    monkeypatch.setattr(Faulty, "fails", (hook, 4))
    with pytest.raises(
        TrainingError,
        match=r"test_trainer_failures\.py, line \d+, in count: KeyError: 'mine'; correct it\. Step [123] is saved\.",
    ):
        train(tiny_model, pair_rows, tmp_path / "failed", **settings)
    _, resumed = train(tiny_model, pair_rows, tmp_path / "failed", if_exists="resume", **settings)
    assert largest_difference(whole, resumed) == 0
