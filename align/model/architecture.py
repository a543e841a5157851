"""Facts of an architecture: body, positions, layers that can be computed again, losses beside the logits."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from align.errors import UserError
from align.system.lazy import no_grad
from align.system.signals import stop_if_alone

__all__ = [
    "body",
    "checkpoint_layers",
    "decoder_layers",
    "heed_signals",
    "ignored_losses",
    "max_positions",
    "require_positions",
    "special_linear_layers",
]


def body(model: Any) -> Any:
    """Return the model without its output head, whose last hidden states are those before it."""
    from transformers import PreTrainedModel

    if model.base_model is not model:
        return model.base_model
    # Llama 4 declares a prefix under which there is nothing
    return next(child for child in model.children() if isinstance(child, PreTrainedModel))


def max_positions(config: Any) -> int | None:
    """Return the longest sequence that the model computes alike in every batch; None if the configuration has no limit.

    With longrope that is the original length: beyond it the rotations of all rows of a batch change with its longest
    row. (Those of dynamic NTK change only beyond ``max_position_embeddings``.)
    """
    text = config.get_text_config()
    longest: int | None = getattr(text, "max_position_embeddings", None)
    for rope in _rope_parameters(text):
        if rope.get("rope_type", rope.get("type")) == "longrope":
            original = rope.get("original_max_position_embeddings") or getattr(
                text, "original_max_position_embeddings", None
            )
            longest = min(length for length in (longest, original) if length is not None)
    return longest


def require_positions(config: Any, length: int, name: str) -> None:
    """Check that the model has positions for sequences of this length.

    Raises:
        UserError: It has fewer.
    """
    positions = max_positions(config)
    if positions is not None and length > positions:
        raise UserError(
            f"trainer.max_length={length} is beyond the {positions} positions of {name}: "
            f"set trainer.max_length={positions} or less."
        )


def checkpoint_layers(model: Any) -> None:
    """Let every layer keep its input alone and compute the rest again in the backward pass.

    transformers' own switch works in training mode only, in which the layers drop and add noise.

    Raises:
        UserError: The architecture has no such layers.
    """
    from torch.utils.checkpoint import checkpoint

    layers = _repeated_layers(model)
    if not layers:
        raise UserError(
            f"trainer.gradient_checkpointing=true: {model.config.model_type} models have no layers that can be "
            "computed again; set it to false and lower trainer.tokens_per_microbatch."
        )
    for layer in layers:
        if "forward" not in vars(layer):
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def decoder_layers(model: Any) -> list[Any]:
    """Return the layers that the model's body computes one after the other, none of them inside another."""
    layers = _repeated_layers(body(model))
    inner = {id(module) for layer in layers for module in layer.modules() if module is not layer}
    return [layer for layer in layers if id(layer) not in inner]


def heed_signals(model: Any) -> None:
    """Let a signal end a pass before any of the model's layers, forward or backward, where it may end there.

    A pass of a large model on a CPU takes minutes. See :func:`align.system.signals.stop_if_alone`.
    """
    for layer in _repeated_layers(model) or [model]:
        layer.register_forward_pre_hook(_heed_signals, with_kwargs=True)


def _heed_signals(_layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    stop_if_alone()
    for given in (*args, *kwargs.values()):
        if isinstance(given, torch.Tensor) and given.requires_grad:
            given.register_hook(lambda _: stop_if_alone())
            return


def _repeated_layers(model: Any) -> list[Any]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def ignored_losses(config: Any) -> list[str]:
    """Return a sentence for each loss that the model would add to its own and that no method here adds."""
    text = config.get_text_config()
    if getattr(text, "output_router_logits", False) and getattr(text, "router_aux_loss_coef", 0):
        return [
            "output_router_logits=true in the model's configuration is not followed: the router's auxiliary loss is "
            "no part of any method here"
        ]
    return []


def special_linear_layers(model: Any) -> list[str]:
    """Return the names of linear layers on which LoRA would fail or be skipped.

    These are layers that compute something else than a matrix product: routers that return a tuple (Llama 4, PhiMoE),
    grouped products (DeepSeek V4); and layers whose weights Mamba's fused kernels read themselves.
    """
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and (not _is_product(module) or _is_read_by_a_kernel(model.config, name))
    ]


@no_grad
def _is_product(layer: torch.nn.Linear) -> bool:
    """Return whether a layer with a forward pass of its own still maps (…, in) to (…, out)."""
    if type(layer).forward is torch.nn.Linear.forward or "bitsandbytes" in type(layer).__module__:
        return True
    try:
        made = layer(layer.weight.new_zeros(1, 1, layer.in_features))
    except (RuntimeError, ValueError, TypeError, IndexError):
        return False
    return isinstance(made, torch.Tensor) and made.shape == (1, 1, layer.out_features)


def _is_read_by_a_kernel(config: Any, name: str) -> bool:
    mamba = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")  # PEFT refuses the layer in these
    return config.model_type in mamba and name.endswith("out_proj")


def _rope_parameters(config: Any) -> list[dict[str, Any]]:
    """Return the parameters of rotary embeddings, one mapping for each type of layer that has its own."""
    found: Any = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    if not isinstance(found, dict):
        return []
    of_layers = [value for value in found.values() if isinstance(value, dict)]
    return of_layers or [found]
