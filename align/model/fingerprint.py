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
    """Return a cheap hash of the weights: names, shapes, sums and absolute sums."""
    digest = hashlib.sha256()
    module: Any = policy.roles.peft_model if isinstance(policy.roles, SharedBase) else policy.roles.module
    for name, parameter in module.named_parameters():
        values = parameter.detach().double() if parameter.is_floating_point() else parameter.detach().to(torch.int64)
        digest.update(f"{name}{tuple(parameter.shape)}{values.sum().item()!r}{values.abs().sum().item()!r}".encode())
    return digest.hexdigest()
