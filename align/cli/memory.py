"""How much memory a run takes, from sizes alone."""

from __future__ import annotations

from dataclasses import dataclass

from align.config import RunConfig

__all__ = ["Size", "estimate"]

_WEIGHT_BYTES = {"float32": 4.0, "bfloat16": 2.0, "4bit": 0.6}  # 4 bits, their scales, and what stays unquantised
_OPTIMIZER_BYTES = {"adamw": 8, "adamw_8bit": 2, "rmsprop": 4, "sgd": 0}  # state per trained parameter
_LOGIT_ROWS = 1024  # rows of logits that exist at a time


@dataclass(frozen=True, kw_only=True)
class Size:
    """Sizes of a model."""

    total: int  # parameters without adapters
    trainable: int  # parameters that one role trains
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int


def estimate(config: RunConfig, size: Size, *, copies: int) -> dict[str, float]:
    """Bytes by purpose; `copies` is the number of roles, which share the base where there are adapters.

    Activations are what backward needs of a decoder layer: ten vectors of the hidden size (norms, attention,
    residuals) and four of the intermediate size (gated MLP) per token; with gradient checkpointing one layer of that,
    and one vector per layer. Lengths differ, so a real micro-batch is often smaller than the budget.
    """
    model, trainer = config.model, config.trainer
    bytes_per_weight = _WEIGHT_BYTES[model.quantization or model.dtype]
    bytes_per_activation = _WEIGHT_BYTES["bfloat16" if trainer.precision == "bfloat16" else model.dtype]
    adapters = config.adapter is not None
    layer = 10 * size.hidden + 4 * size.intermediate
    per_token = layer * size.layers
    if trainer.gradient_checkpointing:
        per_token = layer + size.hidden * size.layers
    return {
        "model": size.total * bytes_per_weight * (1 if adapters else copies),
        "adapters": 4.0 * size.trainable * copies if adapters else 0.0,
        "gradients": 4.0 * size.trainable,
        "optimizer": float(_OPTIMIZER_BYTES[trainer.optimizer] * size.trainable),
        f"activations of {trainer.tokens_per_microbatch:,} tokens": (
            float(trainer.tokens_per_microbatch * per_token) * bytes_per_activation
        ),
        "logits": 3 * 4.0 * _LOGIT_ROWS * size.vocabulary,
    }
