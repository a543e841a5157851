"""Each check finds the fault that it is for, and none finds one in a run without faults."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import DistributedType
from safetensors.torch import load_file, save_file

from align.data import Preferences
from align.data.rendering import any_of
from align.doctor import machine, text
from align.doctor.check import Check, Finding, examine
from align.doctor.checks import CHECKS, FREE
from align.doctor.patient import Patient, Trial
from align.errors import UserError
from align.model.packed_attention import Piece
from align.model.packing import Packing
from align.settings.adapter import Adapter
from align.training.cluster import Cluster
from align.training.step import StepResult
from methods import DPO, SFT
from tests.align.doctor.conftest import Constant, Make, with_parts, with_sample

BY_NAME: dict[str, Check] = {one.name: one for one in CHECKS}
Fault = Callable[["Ward"], Patient]
FAULTS: dict[str, tuple[Fault, str]] = {}


@dataclasses.dataclass(frozen=True)
class Ward:
    """Fixtures that a fault is made with."""

    make: Make
    patch: pytest.MonkeyPatch
    folder: Path
    model: Path

    def copy_of_model(self) -> Path:
        return Path(shutil.copytree(self.model, self.folder / "model"))

    def template(self, text: str, **settings: Any) -> Patient:
        file = self.folder / "template.jinja"
        file.write_text(text)
        return self.make(model={"chat_template": str(file)}, **settings)


def fault(name: str, said: str) -> Callable[[Fault], Fault]:
    def keep(put_in: Fault) -> Fault:
        assert name not in FAULTS
        FAULTS[name] = put_in, said
        return put_in

    return keep


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


# Faults


@fault("versions", "missing")
def _(ward: Ward) -> Patient:
    ward.patch.setattr(machine, "requires", lambda _: ["torch>=1", "no-such-package>=2", "numpy<1"])
    return ward.make()


@fault("device", "does not see it")
def _(ward: Ward) -> Patient:
    if torch.accelerator.is_available():
        pytest.skip("an accelerator is used")
    ward.patch.setattr(machine, "_NVIDIA", ward.folder)
    return ward.make()


@fault("precision", "model.attention=sdpa")
def _(ward: Ward) -> Patient:
    return ward.make(model={"attention": "flash_attention_2"})


@fault("accelerate", "accelerate config")
def _(ward: Ward) -> Patient:
    sharded = SimpleNamespace(distributed_type=DistributedType.FSDP)
    ward.patch.setattr("align.system.processes.Accelerator", lambda: sharded)
    return ward.make()


@fault("settings", "quantization")
def _(ward: Ward) -> Patient:
    return ward.make(adapter=None, model={"quantization": "4bit"})


@fault("run folder", "cannot be written")
def _(ward: Ward) -> Patient:
    (ward.folder / "file").write_text("")
    return ward.make(output_root=str(ward.folder / "file"))


@fault("disk", "free some space")
def _(ward: Ward) -> Patient:
    ward.patch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    return ward.make()


@fault("W&B", "wandb.mode=offline")
def _(ward: Ward) -> Patient:
    ward.patch.delenv("WANDB_MODE")
    ward.patch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    return ward.make(trackers=("wandb",), wandb=machine_wandb(mode="online"))


def machine_wandb(**settings: Any) -> Any:
    from align.settings.config import WandbConfig

    return WandbConfig(**settings)


def test_wandb_that_the_environment_turns_off(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    finding = BY_NAME["W&B"].find(make(trackers=("wandb",)))
    assert finding.state == "wrong"
    assert "WANDB_MODE" in finding.says
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert BY_NAME["W&B"].find(make(trackers=("wandb",))).state == "good"


@fault("hub", "no such model")
def _(ward: Ward) -> Patient:
    return ward.make(model={"name": "nobody/nothing"})


@fault("architecture", "model.name=")
def _(ward: Ward) -> Patient:
    (ward.folder / "empty").mkdir()
    return ward.make(model={"name": str(ward.folder / "empty")})


@fault("positions", "beyond the 256 positions")
def _(ward: Ward) -> Patient:
    return ward.make(trainer={"max_length": 300})


def test_answers_need_positions_too(make: Make) -> None:
    asked = {"trainer": {"max_length": 256}, "evaluation": {"max_new_tokens": 254}}
    assert "leaves no room for a prompt" in BY_NAME["positions"].find(make(**asked)).says
    asked["evaluation"]["prompts"] = 0
    assert BY_NAME["positions"].find(make(**asked)).state == "good"


@fault("weight files", "pickle")
def _(ward: Ward) -> Patient:
    folder = ward.copy_of_model()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return ward.make(model={"name": str(folder)})


@fault("adapter targets", "nosuch")
def _(ward: Ward) -> Patient:
    return ward.make(adapter=Adapter(targets=("q_proj", "nosuch")))


@fault("data", "rejected")
def _(ward: Ward) -> Patient:
    file = ward.folder / "rows.jsonl"
    file.write_text('{"prompt": "A?", "chosen": "B", "rejected": "B"}\n' * 3)
    return ward.make(parts={"data": lambda: (Preferences.load(file), None)})


@fault("held-out data", "ask what data.train asks")
def _(ward: Ward) -> Patient:
    patient = ward.make(data={"heldout": "world/heldout"})
    return with_parts(patient, data=(patient.train, patient.train))


@fault("rewards", "constant")
def _(ward: Ward) -> Patient:
    return ward.make(scorer=Constant(float("nan")))


@fault("chat template", "end every turn")
def _(ward: Ward) -> Patient:
    bare = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    return ward.template(bare, data={"train_on": "all"})


@fault("pad token", "also ends answers")
def _(ward: Ward) -> Patient:
    patient = ward.make()
    patient.tokenizer.pad_token = patient.tokenizer.eos_token
    return patient


@fault("vocabulary", "use the tokenizer the model was trained with")
def _(ward: Ward) -> Patient:
    patient = ward.make()
    patient.tokenizer.add_tokens(["<another>"])
    return patient


@fault("tokens", "max_length")
def _(ward: Ward) -> Patient:
    return ward.make(trainer={"max_length": 2})


@fault("round trip", "come back changed")
def _(ward: Ward) -> Patient:
    return ward.template(
        "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | upper }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )


@fault("one BOS", "begin with two <|bos|>")
def _(ward: Ward) -> Patient:
    return ward.template(
        "<|bos|><|bos|>{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )


@fault("prefix", "other tokens when they are answered")
def _(ward: Ward) -> Patient:
    return ward.template(
        "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>Let me think.{% endif %}"
    )


@fault("end of turn learnt", "would not learn to stop")
def _(ward: Ward) -> Patient:
    return with_sample(ward.make(), responses=[[10, 11], [12, 13]])


@fault("end of turn drawn", "does not stop at '<|end|>'")
def _(ward: Ward) -> Patient:
    ward.patch.setattr(text, "stop_ids", lambda _: [1])
    return ward.make()


@fault("control tokens", "becomes that control token")
def _(ward: Ward) -> Patient:
    patient = ward.make()
    patient.__dict__["encoder"] = dataclasses.replace(patient.encoder, to_mark=any_of([]))
    return patient


@fault("unknown tokens", "take a model for its language")
def _(ward: Ward) -> Patient:
    patient = ward.make()
    patient.__dict__["encoder"] = dataclasses.replace(patient.encoder, unknown=20)
    return with_sample(patient, responses=[[20, 20], [20, 2]])


@fault("truncation", "raise it")
def _(ward: Ward) -> Patient:
    return ward.make(trainer={"max_length": 30})


@fault("room for answers", "evaluation.max_new_tokens=8")
def _(ward: Ward) -> Patient:
    return ward.make(evaluation={"max_new_tokens": 8})


@fault("plan", "never reaches")
def _(ward: Ward) -> Patient:
    return ward.make(trainer={"warmup": 50, "steps": 20})


@fault("number of steps", "40 examples give 2 steps of 20, too few to learn much: raise trainer.epochs, to about 5, or")
def _(ward: Ward) -> Patient:
    return ward.make(trainer={"batch_size": 20})


@fault("sharding", "llama models have no decoder layers")
def _(ward: Ward) -> Patient:
    ward.patch.setattr("align.model.sharding.decoder_layers", lambda _: [])
    return ward.make(trainer={"sharding": "full"})


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


@fault("memory", "no settings are known to fit: lower trainer.max_length")
def _(ward: Ward) -> Patient:
    small = Cluster(devices=1, per_machine=1, room=2**20, accelerator=False)
    ward.patch.setattr("align.doctor.patient.Cluster.own", lambda: small)
    return ward.make()


@fault("weights", "NaN or infinite")
def _(ward: Ward) -> Patient:
    folder = ward.copy_of_model()
    state = load_file(folder / "model.safetensors")
    state["model.norm.weight"][3] = torch.nan
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return ward.make(model={"name": str(folder)})


@fault("layout", "model.layout=flat")
def _(ward: Ward) -> Patient:
    patient = ward.make()
    assert patient.policy.layout == "tree"

    def causal(rows: Any, window: int | None = None) -> torch.Tensor:
        """Lets each answer see those before it."""
        del window
        size = rows.input_ids_RL.shape[1]
        return torch.ones(len(rows.input_ids_RL), 1, size, size, dtype=torch.bool).tril()

    ward.patch.setattr("align.model.tree_layout.tree_mask", causal)
    return patient


@fault("packing", "packed rows change log-probabilities")
def _(ward: Ward) -> Patient:
    patient = ward.make()
    assert patient.policy.packed

    def alone(pieces: tuple[Piece, ...], window: int | None) -> Packing:
        """Lets no answer see its prompt."""
        return Packing([Piece(own) for own, _ in pieces], window)

    ward.patch.setattr("align.model.tree_layout.Packing", alone)
    return patient


@fault("padding", "padding on the left changes")
def _(ward: Ward) -> Patient:
    patient = ward.make()
    assert patient.policy.pads_left
    from align.model.tree_layout import pad_left

    def unmasked(*given: Any) -> tuple[torch.Tensor, torch.Tensor]:
        ids, mask = pad_left(*given)
        return ids, torch.ones_like(mask)

    ward.patch.setattr("align.model.probe.pad_left", unmasked)
    return patient


@fault("reference", "differs from the policy")
def _(ward: Ward) -> Patient:
    patient = ward.make()
    with torch.no_grad():
        for name, parameter in patient.policy.roles.parameters("policy").items():
            if "lora_B" in name:
                parameter.add_(0.3)
    return patient


@fault("dropout", "adds noise")
def _(ward: Ward) -> Patient:
    patient = ward.make()
    layers: Any = patient.policy.model.model.layers  # pyright: ignore[reportAttributeAccessIssue]
    layers[0].mlp.register_forward_hook(lambda _, __, out: torch.nn.functional.dropout(out, 0.5, training=True))
    return patient


@fault("drawing", "other log-probabilities than in training")
def _(ward: Ward) -> Patient:
    patient = ward.make()
    # Training multiplies by the head's weight itself, drawing calls it.
    patient.policy.model.get_output_embeddings().register_forward_hook(lambda _, __, out: 3 * out)
    return patient


@fault("forward and backward", "not finite")
def _(ward: Ward) -> Patient:
    patient = ward.make()
    with torch.no_grad():
        next(iter(patient.policy.roles.parameters("policy").values())).fill_(torch.inf)
    return patient


@fault("gradients", "would never learn")
def _(ward: Ward) -> Patient:
    patient = ward.make(method=SFT())
    layers: Any = patient.policy.model.model.layers  # pyright: ignore[reportAttributeAccessIssue]
    layers[1].self_attn.q_proj.register_forward_hook(lambda _, __, out: out.detach())
    return patient


@fault("time", "trainer.save_steps=1")
def _(ward: Ward) -> Patient:
    trial = Trial(StepResult({"loss": 1.0}, 1.0, 10), 7200.0, [], 1)
    return with_parts(ward.make(), trial=trial)
