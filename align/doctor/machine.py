"""Checks of the machine, and of what the settings ask of it."""

from __future__ import annotations

import os
import shutil
import socket
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import torch
from packaging.requirements import Requirement

from align.doctor.check import check
from align.doctor.patient import Patient
from align.errors import UserError
from align.model.loading import require_found, require_loadable, resolve
from align.runs.run_folder import is_run, require_writable
from align.system.processes import own_device, process_state, require_data_parallel
from align.training.memory import OPTIMIZER_BYTES, readable
from align.training.optimizer import require_optimizer
from align.training.plan import require_effects

__all__ = ["accelerate", "device", "disk", "folder", "hub", "precision", "settings", "tracking", "versions"]

_PROJECT = "align-rlhf"
_FINAL_BYTES = 4  # of a trained parameter
_NVIDIA = Path("/dev/nvidia0")
_SECONDS = 5.0  # that a server has to answer


@check("versions", "installed packages against the ranges of `pyproject.toml`", free=True)
def versions(patient: Patient) -> str | None:
    """Every package that is needed is there, in a version that was tested."""
    del patient
    try:
        needed = [Requirement(text) for text in requires(_PROJECT) or ()]
    except PackageNotFoundError:  # a checkout that is not installed
        return None
    needed = [one for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    wrong: list[str] = []
    for one in needed:
        try:
            found = version(one.name)
        except PackageNotFoundError:
            wrong.append(f"{one.name} is missing")
            continue
        if not one.specifier.contains(found, prereleases=True):
            wrong.append(f"{one.name} is {found}, tested is {one.specifier}")
    if wrong:
        raise UserError(f"{'; '.join(wrong)}: pip install --upgrade {_PROJECT}, in an environment of its own.")
    return f"{len(needed)} packages in their tested ranges; torch {torch.__version__}"


@check("device", "an accelerator that is there is used", free=True)
def device(patient: Patient) -> str | None:
    """PyTorch sees the accelerator of this machine."""
    del patient
    kind = own_device().type
    if kind == "cpu" and _NVIDIA.exists():
        build = "without CUDA" if torch.version.cuda is None else f"for CUDA {torch.version.cuda}"
        raise UserError(
            f"this machine has an NVIDIA GPU, but PyTorch {torch.__version__}, built {build}, does not see it, so the "
            "CPU would be used: install the build of PyTorch for its driver (pytorch.org/get-started), and see "
            "CUDA_VISIBLE_DEVICES."
        )
    name = torch.cuda.get_device_name() if kind == "cuda" else f"{kind}, {os.cpu_count()} cores"
    return f"{name}, {process_state().num_processes} process(es)"


@check("precision", "the device computes in the precision and attention asked for", free=True)
def precision(patient: Patient) -> str | None:
    """The device has bfloat16 and the attention kernels."""
    model, trainer = patient.config.model, patient.config.trainer
    kind = own_device().type
    narrow = "bfloat16" in (model.dtype, trainer.precision)
    if narrow and kind == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError("bfloat16 is only emulated on this GPU: set model.dtype=float32, trainer.precision=float32.")
    if model.attention == "flash_attention_2" and (kind != "cuda" or find_spec("flash_attn") is None):
        raise UserError(
            "model.attention=flash_attention_2 needs an NVIDIA GPU and the package flash-attn: install it, or take "
            "model.attention=sdpa."
        )
    return f"weights {model.dtype}, computation {trainer.precision}, attention {model.attention or 'sdpa'}"


@check("accelerate", "one device, or data-parallel processes")
def accelerate(patient: Patient) -> str | None:
    """The configuration of accelerate asks for nothing that is not supported."""
    del patient
    require_data_parallel()
    return f"{process_state().distributed_type.value}, {process_state().num_processes} process(es)"


@check("settings", "settings that contradict each other or need a package")
def settings(patient: Patient) -> str | None:
    """Model, adapter, optimiser and schedule fit together."""
    config = patient.config
    require_loadable(config.model, config.adapter)
    require_optimizer(config.trainer)
    require_effects(config.trainer, patient.method)
    return "nothing contradicts"


@check("run folder", "it can be written, and is not another run's")
def folder(patient: Patient) -> str | None:
    """The folder of the run, or the first one above it that exists, can be written."""
    config = patient.config
    place = Path(config.output_root) / config.run_name
    require_writable(place)
    if place.is_dir() and any(place.iterdir()) and config.if_exists == "resume" and not is_run(place):
        raise UserError(f"{place} is no run that could be resumed: take another run_name, or if_exists=new.")
    return str(place)


@check("disk", "room for the checkpoints that are kept, and `final/`")
def disk(patient: Patient) -> str | None:
    """The disk of the run folder holds what is written while a checkpoint replaces another."""
    config, trained = patient.config, patient.skeleton.size.trainable * len(patient.method.trains)
    state = _FINAL_BYTES + OPTIMIZER_BYTES[config.trainer.optimizer]
    needed = trained * (state * (config.trainer.keep_checkpoints + 1) + 2 * _FINAL_BYTES)
    free = shutil.disk_usage(_existing(Path(config.output_root))).free
    if needed > free:
        raise UserError(
            f"checkpoints and final/ take about {readable(needed)}, and {config.output_root} has {readable(free)}: "
            "free some space, choose another output_root, or lower trainer.keep_checkpoints."
        )
    return f"about {readable(needed)} of {readable(free)}"


@check("W&B", "mode against environment, and whether its server answers")
def tracking(patient: Patient) -> str | None:
    """A run that asks for W&B reaches it."""
    config = patient.config
    if "wandb" not in config.trackers:
        return None
    if os.environ.get("WANDB_MODE") == "disabled" or os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true"):
        raise UserError(
            "trackers=[wandb] asks for W&B, which the environment turns off (WANDB_MODE, WANDB_DISABLED): unset that, "
            "or leave wandb out of trackers."
        )
    if config.wandb.mode == "offline":
        return "offline; `wandb sync` sends the run later"
    address = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), timeout=_SECONDS).close()
    except OSError as error:
        raise UserError(
            f"wandb.mode=online, but {address.hostname} cannot be reached ({error.strerror or error}): write "
            "wandb.mode=offline and send the run later with `wandb sync`."
        ) from error
    return f"online, {address.hostname} answers"


@check("hub", "the model is here, in the cache, or on the hub")
def hub(patient: Patient) -> str | None:
    """The model is found."""
    name = patient.config.model.name
    require_found(patient.config.model)
    return f"{name} is a folder here" if Path(resolve(name)).is_dir() else f"{name} is found"


def _existing(place: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(part for part in (place.absolute(), *place.absolute().parents) if part.exists())
