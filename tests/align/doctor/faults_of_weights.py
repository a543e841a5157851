"""A fault for each check of the model and a trial step."""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import load_file, save_file

from align.doctor.patient import Patient, Trial
from align.model.packed_attention import Piece
from align.model.packing import Packing
from align.settings.adapter import Adapter
from align.training.cluster import Cluster
from align.training.step import StepResult
from methods import SFT
from tests.align.doctor.conftest import with_parts
from tests.align.doctor.faults import Faults, Ward

FAULTS = Faults()


@FAULTS.of("architecture", "model.name=")
def _(ward: Ward) -> Patient:
    (ward.folder / "empty").mkdir()
    return ward.make(model={"name": str(ward.folder / "empty")})


@FAULTS.of("weight files", "pickle")
def _(ward: Ward) -> Patient:
    folder = ward.copy_of_model()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return ward.make(model={"name": str(folder)})


@FAULTS.of("adapter targets", "nosuch")
def _(ward: Ward) -> Patient:
    return ward.make(adapter=Adapter(targets=("q_proj", "nosuch")))


@FAULTS.of("sharding", "llama models have no decoder layers")
def _(ward: Ward) -> Patient:
    ward.patch.setattr("align.model.sharding.decoder_layers", lambda _: [])
    return ward.make(trainer={"sharding": "full"})


@FAULTS.of("memory", "no settings are known to fit: lower trainer.max_length")
def _(ward: Ward) -> Patient:
    small = Cluster(devices=1, per_machine=1, room=2**20, accelerator=False)
    ward.patch.setattr("align.doctor.patient.Cluster.own", lambda: small)
    return ward.make()


@FAULTS.of("weights", "NaN or infinite")
def _(ward: Ward) -> Patient:
    folder = ward.copy_of_model()
    state = load_file(folder / "model.safetensors")
    state["model.norm.weight"][3] = torch.nan
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return ward.make(model={"name": str(folder)})


@FAULTS.of("layout", "model.layout=flat")
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


@FAULTS.of("packing", "packed rows change log-probabilities")
def _(ward: Ward) -> Patient:
    patient = ward.make()
    assert patient.policy.packed

    def alone(pieces: tuple[Piece, ...], window: int | None) -> Packing:
        """Lets no answer see its prompt."""
        return Packing([Piece(own) for own, _ in pieces], window)

    ward.patch.setattr("align.model.tree_layout.Packing", alone)
    return patient


@FAULTS.of("padding", "padding on the left changes")
def _(ward: Ward) -> Patient:
    patient = ward.make()
    assert patient.policy.pads_left
    from align.model.tree_layout import pad_left

    def unmasked(*given: Any) -> tuple[torch.Tensor, torch.Tensor]:
        ids, mask = pad_left(*given)
        return ids, torch.ones_like(mask)

    ward.patch.setattr("align.model.probe.pad_left", unmasked)
    return patient


@FAULTS.of("reference", "differs from the policy")
def _(ward: Ward) -> Patient:
    patient = ward.make()
    with torch.no_grad():
        for name, parameter in patient.policy.roles.parameters("policy").items():
            if "lora_B" in name:
                parameter.add_(0.3)
    return patient


@FAULTS.of("dropout", "adds noise")
def _(ward: Ward) -> Patient:
    patient = ward.make()
    layers: Any = patient.policy.model.model.layers  # pyright: ignore[reportAttributeAccessIssue]
    layers[0].mlp.register_forward_hook(lambda _, __, out: torch.nn.functional.dropout(out, 0.5, training=True))
    return patient


@FAULTS.of("drawing", "other log-probabilities than in training")
def _(ward: Ward) -> Patient:
    patient = ward.make()
    # Training multiplies by the head's weight itself, drawing calls it.
    patient.policy.model.get_output_embeddings().register_forward_hook(lambda _, __, out: 3 * out)
    return patient


@FAULTS.of("forward and backward", "not finite")
def _(ward: Ward) -> Patient:
    patient = ward.make()
    with torch.no_grad():
        next(iter(patient.policy.roles.parameters("policy").values())).fill_(torch.inf)
    return patient


@FAULTS.of("gradients", "would never learn")
def _(ward: Ward) -> Patient:
    patient = ward.make(method=SFT())
    layers: Any = patient.policy.model.model.layers  # pyright: ignore[reportAttributeAccessIssue]
    layers[1].self_attn.q_proj.register_forward_hook(lambda _, __, out: out.detach())
    return patient


@FAULTS.of("time", "trainer.save_steps=1")
def _(ward: Ward) -> Patient:
    trial = Trial(StepResult({"loss": 1.0}, 1.0, 10), 7200.0, [], 1)
    return with_parts(ward.make(), trial=trial)
