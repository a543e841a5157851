"""A fault for each check of the machine, the settings and the run folder."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from accelerate import DistributedType

from align.doctor import machine
from align.doctor.patient import Patient
from align.settings.config import WandbConfig
from tests.align.doctor.faults import Faults, Ward

FAULTS = Faults()


@FAULTS.of("versions", "missing")
def _(ward: Ward) -> Patient:
    ward.patch.setattr(machine, "requires", lambda _: ["torch>=1", "no-such-package>=2", "numpy<1"])
    return ward.make()


@FAULTS.of("device", "does not see it")
def _(ward: Ward) -> Patient:
    if torch.accelerator.is_available():
        pytest.skip("an accelerator is used")
    ward.patch.setattr(machine, "_NVIDIA", ward.folder)
    return ward.make()


@FAULTS.of("precision", "model.attention=sdpa")
def _(ward: Ward) -> Patient:
    return ward.make(model={"attention": "flash_attention_2"})


@FAULTS.of("accelerate", "accelerate config")
def _(ward: Ward) -> Patient:
    sharded = SimpleNamespace(distributed_type=DistributedType.FSDP)
    ward.patch.setattr("align.system.processes.Accelerator", lambda: sharded)
    return ward.make()


@FAULTS.of("settings", "quantization")
def _(ward: Ward) -> Patient:
    return ward.make(adapter=None, model={"quantization": "4bit"})


@FAULTS.of("run folder", "cannot be created")
def _(ward: Ward) -> Patient:
    (ward.folder / "file").write_text("")
    return ward.make(output_root=str(ward.folder / "file"))


@FAULTS.of("disk", "free some space")
def _(ward: Ward) -> Patient:
    ward.patch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    return ward.make()


@FAULTS.of("W&B", "wandb.mode=offline")
def _(ward: Ward) -> Patient:
    ward.patch.delenv("WANDB_MODE")
    ward.patch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    return ward.make(trackers=("wandb",), wandb=WandbConfig(mode="online"))


@FAULTS.of("hub", "no such model")
def _(ward: Ward) -> Patient:
    return ward.make(model={"name": "nobody/nothing"})
