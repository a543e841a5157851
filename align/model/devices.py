"""Tensors on a device: how they get there, and the type in which their products are computed there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Return the type in which matrix products are computed there now, if not in that of their operands."""
    kind = device.type
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if on else None


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Return the tensor on ``device``; a copy to an accelerator does not wait for what that is doing."""
    if device.type == "cuda" and tensor.device.type == "cpu" and type(tensor) is torch.Tensor:  # one with content
        tensor = tensor.contiguous().pin_memory()
    return tensor.to(device, non_blocking=True)


def brought(tree: Any) -> Any:
    """Return lists, tuples and dicts of numbers, and of tensors of one number, as they are with plain numbers.

    All tensors come from the accelerator together, so the processor waits for it once.
    """
    from torch.utils._pytree import tree_flatten, tree_unflatten

    values, form = tree_flatten(tree)
    away = [isinstance(value, torch.Tensor) and value.device.type != "cpu" for value in values]
    there = [value.detach().float().reshape(()) for value, is_away in zip(values, away, strict=True) if is_away]
    here = iter(torch.stack(there).tolist() if there else ())
    return tree_unflatten(
        [next(here) if is_away else float(value) for value, is_away in zip(values, away, strict=True)], form
    )
