"""A fingerprint of a policy's weights, by which a resumed run or a candidate file recognises them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch

from align.model.roles import SharedBase
from align.model.sharding import whole_tensor

if TYPE_CHECKING:
    from align.model.policy import Policy


@torch.no_grad()
def weights_fingerprint(policy: Policy) -> str:
    """Return the sha256 of the weights: names, types, shapes and bytes, the same on every device.

    Of a sharded model too, for which all ranks call it together.
    """
    digest = hashlib.sha256()
    module: Any = policy.roles.peft_model if isinstance(policy.roles, SharedBase) else policy.roles.module
    for name, part in module.state_dict().items():
        tensor = whole_tensor(part)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
