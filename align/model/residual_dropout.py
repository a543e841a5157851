"""Residual dropout: on what attention and MLP add to the residual stream, more of it in higher layers.

The layers of an architecture are found by their work, not by their names: in each, two parts whose outputs make up the
difference between the layer's output and its input, ``y = x + c·(a + m)``, with a constant c that is 1 in most.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from align.errors import UserError
from align.model.architecture import body

__all__ = ["ResidualDropout", "drop_residuals", "dropout_rates"]

_TOKENS = 6
_MARGIN = 16.0  # units in the last place, of sums in another order
_NAMES = ("dropout_of_attention", "dropout_of_mlp")


def dropout_rates(layers: int, top: float) -> list[float]:
    """Return the rate of each layer, ``top·i / (layers − 1)``: from 0 at the bottom to ``top`` (LIMA, section 3)."""
    return [top * i / max(1, layers - 1) for i in range(layers)]


class ResidualDropout(nn.Dropout):
    """Dropout on the output of a part of a layer; each forward pass says whether it is active."""

    def hook(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        """Drop from the part's output, the first of them where it returns several."""
        del module, inputs
        return (self(output[0]), *output[1:]) if isinstance(output, tuple) else self(output)


@torch.no_grad()
def drop_residuals(model: Any, top: float) -> None:
    """Add residual dropout to every layer, rising linearly from 0 at the bottom to ``top``; a second call sets ``top``.

    Args:
        model: A causal language model of transformers.
        top: The rate at the top layer.

    Raises:
        UserError: A layer is not its input plus the outputs of two of its parts.
    """
    layers = _layers(model)
    for rate, (layer, parts) in zip(dropout_rates(len(layers), top), layers, strict=True):
        for name, part in zip(_NAMES, parts, strict=True):
            earlier = getattr(layer, name, None)
            if isinstance(earlier, ResidualDropout):
                earlier.p = rate
                continue
            dropout = ResidualDropout(rate).eval()
            layer.add_module(name, dropout)
            part.register_forward_hook(dropout.hook)


def _layers(model: Any) -> list[tuple[nn.Module, tuple[nn.Module, nn.Module]]]:
    """Find the layers, bottom first, each with the two parts that add to the residual stream."""
    stacks = [module for module in body(model).modules() if isinstance(module, nn.ModuleList)]
    layers = list(max(stacks, key=_weights, default=nn.ModuleList()))
    seen: dict[nn.Module, list[Tensor]] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        given = args[0] if args else kwargs.get("hidden_states")
        made = output[0] if isinstance(output, tuple) else output
        seen[module] = [value.detach().clone() for value in (given, made) if isinstance(value, Tensor)]

    hooks = [
        module.register_forward_hook(note, with_kwargs=True)
        for layer in layers
        for module in (layer, *layer.children())
    ]
    try:
        embedding = model.get_input_embeddings()
        tokens = torch.arange(1, _TOKENS + 1, device=embedding.weight.device)[None] % embedding.weight.shape[0]
        body(model)(input_ids=tokens, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    found = [_parts(layer, seen) for layer in layers]
    if not found or None in found:
        raise UserError(
            f"trainer.residual_dropout: a layer of {model.config.model_type} models is not its input plus the outputs "
            "of an attention and an MLP, as far as can be seen; leave it at 0."
        )
    return [(layer, parts) for layer, parts in zip(layers, found, strict=True) if parts is not None]


def _weights(stack: nn.ModuleList) -> int:
    return sum(parameter.numel() for parameter in stack.parameters())


def _parts(layer: nn.Module, seen: dict[nn.Module, list[Tensor]]) -> tuple[nn.Module, nn.Module] | None:
    """Find the two children whose outputs, added to the layer's input, are its output."""
    if len(seen.get(layer, ())) < 2:
        return None
    x, y = (value.float() for value in seen[layer])
    outputs = [
        (child, seen[child][-1].float().reshape(y.shape))
        for child in layer.children()
        if seen.get(child) and seen[child][-1].numel() == y.numel() == x.numel()
    ]
    eps = torch.finfo(seen[layer][1].dtype).eps
    for (first, a), (second, m) in combinations(outputs, 2):
        added = a + m
        c = ((y - x) * added).sum() / added.square().sum()
        size = x.abs() + c.abs() * (a.abs() + m.abs())
        if bool(((y - x - c * added).abs() <= _MARGIN * eps * size).all()):
            return first, second
    return None
