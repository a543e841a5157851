"""TR-DPO: the reference of the loss follows the policy, with LoRA and without; a resumed run ends as a straight one."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from align import Policy, Preferences, Trainer, TrainerConfig
from align.model.batch import Batch
from align.settings.adapter import Adapter
from align.training.step import Stepper, TrainingError
from methods.dpo.dpo import DPO

pytestmark = pytest.mark.usefixtures("without_charts")

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
    """θ_ref ← (1 − α)θ_ref + αθ once steps 2 and 4 are over: .1·2 and .1·4 away from the start; .12 and .288, soft."""
    policy, method = make_policy(), DPO(sync_steps=2, sync_weight=weight)
    policy.require(method.roles)
    method.begin(policy)
    start = moved(policy)
    assert all(torch.equal(start[name], p) for name, p in policy.roles.weights("policy").items())
    expected = {1.0: [0, 0, 0.2, 0.2, 0.4], 0.6: [0, 0, 0.12, 0.12, 0.288]}[weight]
    for step, distance in enumerate(expected, start=1):
        method.before_step(policy, step)
        for name, tensor in moved(policy).items():
            torch.testing.assert_close(tensor, start[name] + distance, atol=1e-6, rtol=0)
        nudge(policy)


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
        method.before_step(policy, 2)
        back = method.prepare(policy, PAIRS)
        assert method.loss(policy, back).sums["policy"].item() / 2 == pytest.approx(0.693147, abs=1e-6)


def run(
    model: Path, rows: Any, folder: Path, adapter: Adapter | None, method: DPO | None = None, **settings: Any
) -> Path:
    policy = Policy.load(str(model), adapter=adapter)
    config = TrainerConfig(
        steps=4, batch_size=8, learning_rate=1e-2, max_length=200, save_steps=1, optimizer="sgd", eval_steps=2
    )
    trainer = Trainer(policy, folder, config, **settings)
    method = method or DPO(sync_steps=2, sync_weight=0.6, beta=2.0)
    return trainer.fit(method, Preferences.from_rows(rows), Preferences.from_rows(rows[:4])).folder


def held_out(folder: Path) -> dict[int, float]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {record["step"]: record["heldout/loss"] for record in records if "heldout/loss" in record}


def test_held_out_metrics_are_against_the_anchor_of_the_step(tiny_model: Path, pair_rows: Any, tmp_path: Path) -> None:
    """Before it becomes the policy, where each of them is ln 2; after step 2 that is what DPO measures."""
    adapter = Adapter(r=4)
    moving = run(tiny_model, pair_rows, tmp_path / "moving", adapter, DPO(sync_steps=2, beta=2.0))
    fixed = run(tiny_model, pair_rows, tmp_path / "fixed", adapter, DPO(beta=2.0))
    found, expected = held_out(moving), held_out(fixed)
    assert found[0] == pytest.approx(math.log(2), abs=1e-6)
    assert found[2] == pytest.approx(expected[2], rel=1e-6)
    assert abs(found[2] - math.log(2)) > 1e-4
    assert abs(found[4] - math.log(2)) > 1e-4
    assert found[4] != pytest.approx(expected[4], rel=1e-4)


@pytest.mark.parametrize("fails", [3, 4])
def test_a_step_that_failed_after_the_anchor_moved_does_not_move_it_again(
    fails: int, tiny_model: Path, pair_rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It moves as step 3 begins; what is saved then is resumed to the same end."""
    straight = run(tiny_model, pair_rows, tmp_path / "straight", Adapter(r=4))
    original, calls = Stepper.step, iter(range(1, 100))

    def failing(self: Stepper, *given: Any) -> Any:
        if next(calls) == fails:
            raise TrainingError("no memory.")
        return original(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "step", failing)
        with pytest.raises(TrainingError, match=f"Step {fails - 1} is saved"):
            run(tiny_model, pair_rows, tmp_path / "cut", Adapter(r=4))
    cut = run(tiny_model, pair_rows, tmp_path / "cut", Adapter(r=4), if_exists="resume")
    after, before = weights(cut / "final"), weights(straight / "final")
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert held_out(cut) == held_out(straight)


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
    saved = cut / "checkpoints" / "step-00000003"
    if adapter is None:
        parts = weights(saved / "parts")
        pairs = [(parts[name.replace("anchor", "policy")], parts[name]) for name in parts if "/anchor." in name]
    else:
        policy, anchor = weights(saved / "policy"), weights(saved / "anchor")
        pairs = [(policy[name], anchor[name]) for name in policy]
    assert pairs
    assert any(not torch.equal(ours, theirs) for ours, theirs in pairs)
    assert not (straight / "final" / "anchor").exists()


@pytest.mark.parametrize(("every", "says"), [(0, False), (2, False), (3, True), (4, True)])
def test_a_reference_that_never_moves_is_said_when_the_run_begins(
    every: int, says: bool, tiny_model: Path, pair_rows: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In three steps it moves before the third at the latest, after two."""
    policy = Policy.load(str(tiny_model), adapter=Adapter(r=2))
    config = TrainerConfig(steps=3, batch_size=2, max_length=200)
    Trainer(policy, tmp_path / "run", config).fit(DPO(sync_steps=every), Preferences.from_rows(pair_rows[:8]))
    said = f"Warning: the reference moves after every {every} steps and the run has 3, so it never does; lower method."
    assert (said in capsys.readouterr().out) is says
