"""TR-DPO: the reference of the loss follows the policy, with LoRA and without; a resumed run ends as a straight one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from align import Policy, Preferences, Trainer, TrainerConfig
from align.model.batch import Batch
from align.settings.adapter import Adapter
from methods.dpo.dpo import DPO

PAIRS = Batch(
    prompt_ids=((3, 4), (5,)),
    response_ids=(([6, 7, 2], [8, 2]), ([9, 2], [10, 11, 2])),
    rows=(0, 1),
    columns={"weight_P": torch.ones(2)},
)


def moved(policy: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in policy.roles.weights("anchor").items()}


def nudge(policy: Any) -> None:
    with torch.no_grad():
        for parameter in policy.roles.weights("policy").values():
            parameter.add_(0.1)


@pytest.mark.parametrize("weight", [1.0, 0.6])
def test_the_anchor_moves_every_so_many_steps(weight: float, make_policy: Any) -> None:
    """θ_ref ← (1 − α)θ_ref + αθ after steps 2 and 4: .1·2 and .1·4 away from the start, hard; .12 and .288, soft."""
    policy, method = make_policy(), DPO(sync_steps=2, sync_weight=weight)
    policy.require(method.roles)
    method.begin(policy)
    start = moved(policy)
    assert all(torch.equal(start[name], p) for name, p in policy.roles.weights("policy").items())
    expected = {1.0: [0, 0.2, 0.2, 0.4], 0.6: [0, 0.12, 0.12, 0.288]}[weight]
    for step, distance in enumerate(expected, start=1):
        nudge(policy)
        method.after_step(policy, step)
        for name, tensor in moved(policy).items():
            torch.testing.assert_close(tensor, start[name] + distance, atol=1e-6, rtol=0)


def test_the_loss_is_against_the_anchor_and_trains_the_policy_alone(make_policy: Any) -> None:
    policy, method = make_policy(), DPO(sync_steps=1)
    policy.require(method.roles)
    method.begin(policy)
    with torch.no_grad():
        batch = method.prepare(policy, PAIRS)
    loss = method.loss(policy, batch)
    assert loss.sums["policy"].item() / 2 == pytest.approx(0.693147, abs=1e-6)  # the anchor is the policy, not the base
    loss.sums["policy"].backward()
    assert all(p.grad is None for p in policy.roles.weights("anchor").values())
    with torch.no_grad():
        assert DPO().prepare(policy, PAIRS)["reference_PK"].allclose(batch["reference_PK"]) is False  # the base
    nudge(policy)
    with torch.no_grad():
        away = method.prepare(policy, PAIRS)
        assert method.loss(policy, away).sums["policy"].item() / 2 != pytest.approx(0.693147, abs=1e-4)
        method.after_step(policy, 1)
        back = method.prepare(policy, PAIRS)
        assert method.loss(policy, back).sums["policy"].item() / 2 == pytest.approx(0.693147, abs=1e-6)


def run(model: Path, rows: Any, folder: Path, adapter: Adapter | None, **settings: Any) -> Path:
    policy = Policy.load(str(model), adapter=adapter)
    config = TrainerConfig(steps=4, batch_size=8, learning_rate=1e-2, max_length=200, save_steps=1, optimizer="sgd")
    trainer = Trainer(policy, folder, config, **settings)
    method = DPO(sync_steps=2, sync_weight=0.6, beta=2.0)
    return trainer.fit(method, Preferences.from_rows(rows), Preferences.from_rows(rows[:4])).folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


@pytest.mark.parametrize("adapter", [Adapter(r=4, dropout=0.1), None], ids=["lora", "full"])
def test_a_resumed_run_ends_as_a_straight_one(
    adapter: Adapter | None, tiny_model: Path, pair_rows: Any, tmp_path: Path
) -> None:
    """Stopped after step 3: the anchor is then neither the start model nor the policy."""
    straight = run(tiny_model, pair_rows, tmp_path / "straight", adapter)
    records = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()]
    cut = tmp_path / "cut"
    shutil.copytree(straight, cut)
    shutil.rmtree(cut / "final")
    shutil.rmtree(cut / "checkpoints" / "step-00000004")
    assert run(tiny_model, pair_rows, cut, adapter, if_exists="resume") == cut
    after, before = weights(cut / "final"), weights(straight / "final")
    assert all(torch.equal(after[name], before[name]) for name in before)
    again = [json.loads(line) for line in (cut / "metrics.jsonl").read_text().splitlines()]
    last = [next(r for r in each if r["step"] == 4 and "train/loss" in r)["train/loss"] for each in (records, again)]
    assert last[0] == last[1]
    anchor = weights(cut / "checkpoints" / "step-00000003" / "anchor")
    policy = weights(cut / "checkpoints" / "step-00000003" / "policy")
    assert any(not torch.equal(anchor[name], policy[name]) for name in policy)
    assert not (straight / "final" / "anchor").exists()
