"""A fingerprint of a policy's weights, by which a resumed run or a candidate file recognises them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch

from align.model.roles import SharedBase

if TYPE_CHECKING:
    from align.model.policy import Policy


@torch.no_grad()
def weights_fingerprint(policy: Policy) -> str:
    """Return the sha256 of the weights: names, types, shapes and bytes, the same on every device."""
    digest = hashlib.sha256()
    module: Any = policy.roles.peft_model if isinstance(policy.roles, SharedBase) else policy.roles.module
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
