"""Adapters merged into the weights of their base for a while."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["mergeable", "merged"]


def mergeable(model: nn.Module, head: Any) -> list[Any]:
    """Return the layers whose adapters can be merged.

    They are the float32 ones, because rounding in others would change the model; never the output head, whose weight
    may be the embedding's.
    """
    from peft.tuners.lora import Linear

    layers = [layer for layer in model.modules() if isinstance(layer, Linear) and layer is not head]
    return [layer for layer in layers if all(p.dtype == torch.float32 for p in layer.parameters())]


@contextmanager
def merged(layers: Sequence[Any], *, in_place: bool) -> Generator[None]:
    """Merge the active adapters into the base weights of these layers inside the block; then put copies of them back.

    ``in_place``: there are no copies; the weights themselves change, and whoever owns them puts them back.
    """
    kept = [(parameter, parameter.data) for layer in layers for parameter in layer.get_base_layer().parameters()]
    try:
        for layer in layers:
            layer.merge(safe_merge=True)
            if in_place:
                _write_back(kept, layer)
        yield
    finally:
        for parameter, data in kept:
            parameter.data = data
        for layer in layers:
            layer.merged_adapters.clear()


def _write_back(kept: Sequence[tuple[nn.Parameter, torch.Tensor]], layer: Any) -> None:
    own = {id(parameter) for parameter in layer.get_base_layer().parameters()}
    for parameter, data in kept:
        if id(parameter) in own:
            data.copy_(parameter.data)
            parameter.data = data
