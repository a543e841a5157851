"""A fingerprint of the weights that training begins from."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch

from align.model.roles import FullCopies

if TYPE_CHECKING:
    from align.model.policy import Policy


@torch.no_grad()
def weights_fingerprint(policy: Policy) -> str:
    """A cheap hash of the weights training begins from: names, shapes, sums and absolute sums."""
    digest = hashlib.sha256()
    module: Any = policy.roles.module if isinstance(policy.roles, FullCopies) else policy.roles.peft_model  # pyright: ignore[reportAttributeAccessIssue]
    for name, parameter in module.named_parameters():
        values = parameter.detach().double() if parameter.is_floating_point() else parameter.detach().to(torch.int64)
        digest.update(f"{name}{tuple(parameter.shape)}{values.sum().item()!r}{values.abs().sum().item()!r}".encode())
    return digest.hexdigest()
