"""Checks of tensor arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def require_like(mask: Tensor, **tensors: Tensor) -> None:
    """Assert that the mask is boolean and every tensor floating-point, of the mask's shape."""
    assert mask.dtype == torch.bool, f"the mask is {mask.dtype}, not bool"
    for name, tensor in tensors.items():
        assert tensor.is_floating_point(), f"{name} is {tensor.dtype}, not floating-point"
        assert tensor.shape == mask.shape, f"{name} has shape {tuple(tensor.shape)}, its mask {tuple(mask.shape)}"


def require_right_padded(mask_PKT: Tensor) -> None:
    """Assert that every response begins at token 0 and has no gap."""
    assert mask_PKT.ndim == 3, f"the mask has {mask_PKT.ndim} dimensions, not (P, K, T)"
    assert not bool((mask_PKT[..., 1:] & ~mask_PKT[..., :-1]).any()), "a response is not padded on the right"
