"""The state of training all parameters: each rank writes its part, and any number of ranks reads them back.

It is torch's ``torch.distributed.checkpoint`` with safetensors as its storage, so that nothing is pickled. The files
are ``parts/shard-<rank>-….safetensors``, with names ``weights/<role>.<parameter>`` and ``optimizer/<number>/<name>``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter

from align.model.policy import Policy
from align.model.roles import Role
from align.training.optimizer import optimizer_tensors, restore_optimizer

__all__ = ["load_parts", "save_parts"]

_WEIGHTS, _OPTIMIZER = "weights/", "optimizer/"


def save_parts(policy: Policy, roles: Sequence[Role], optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Write the weights of these roles and the optimiser's tensors; all ranks call it.

    Raises:
        OSError: This rank or another one cannot write.
    """
    state = {**_weights(policy, roles), **{f"{_OPTIMIZER}{key}": t for key, t in optimizer_tensors(optimizer).items()}}
    writer = HuggingFaceStorageWriter(str(folder / "parts"), save_distributed=True)
    _alone_or_together(lambda: dcp.save(state, storage_writer=writer))


def load_parts(
    policy: Policy, roles: Sequence[Role], optimizer: torch.optim.Optimizer, schedule: Any, folder: Path
) -> None:
    """Read back what :func:`save_parts` and :func:`align.training.optimizer.save_settings` wrote; all ranks call it."""
    reader = HuggingFaceStorageReader(str(folder / "parts"))
    saved: Any = reader.read_metadata().state_dict_metadata
    parameters: list[torch.Tensor] = [p for group in optimizer.param_groups for p in group["params"]]

    def room(key: str) -> torch.Tensor:
        like, size = parameters[int(key.split("/")[1])], saved[key].size
        dtype = saved[key].properties.dtype
        return torch.zeros_like(like, dtype=dtype) if like.shape == size else torch.zeros(size, dtype=dtype)

    moments = {key: room(key) for key in saved if key.startswith(_OPTIMIZER)}
    state = {**_weights(policy, roles), **moments}
    _alone_or_together(lambda: dcp.load(state, storage_reader=reader))
    tensors = {key.removeprefix(_OPTIMIZER): tensor for key, tensor in moments.items()}
    restore_optimizer(optimizer, schedule, folder, tensors)


def _weights(policy: Policy, roles: Sequence[Role]) -> dict[str, torch.Tensor]:
    return {f"{_WEIGHTS}{name}": parameter.detach() for name, parameter in policy.parameters(roles).items()}


def _alone_or_together(act: Callable[[], Any]) -> None:
    """Save or load.

    Raises:
        OSError: That of the first rank that has one; torch's own exception is none that `except Exception` catches.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
            act()
    except dcp.CheckpointException as failed:
        first = next(error for error, _ in failed.failures.values())
        raise first from failed
