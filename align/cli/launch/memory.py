"""How much memory a run takes, from sizes alone."""

from __future__ import annotations

from dataclasses import dataclass

from align.settings.config import RunConfig

__all__ = ["Size", "estimate"]

_WEIGHT_BYTES = {"float32": 4.0, "bfloat16": 2.0, "4bit": 0.6}  # 4 bits, their scales, and what stays unquantised
_OPTIMIZER_BYTES = {"adamw": 8, "adamw_8bit": 2, "rmsprop": 4, "sgd": 0}  # state per trained parameter
_LIBRARIES = 0.6 * 2**30  # a process that has imported everything and loaded nothing


@dataclass(frozen=True, kw_only=True)
class Size:
    """Sizes of a model."""

    total: int  # parameters without adapters
    trainable: int  # parameters that one role trains
    layers: int
    hidden: int
    intermediate: int


def estimate(config: RunConfig, size: Size, *, copies: int) -> dict[str, float]:
    """Bytes by purpose; `copies` is the number of roles, which share the base where there are adapters.

    Backward needs of each token and decoder layer about ten vectors of the hidden size (norms, attention, residuals)
    and four of the intermediate size (gated MLP): counted on LLaMA and Qwen3 with autograd's hooks, right within
    15 %. With gradient checkpointing it needs one layer of that, and one vector per layer. Autocast keeps some of
    them in both precisions. The peak is taken as twice that: a 26M LLaMA on a CPU took 1.8 to 2.1 times.
    """
    model, trainer = config.model, config.trainer
    bytes_per_weight = _WEIGHT_BYTES[model.quantization or model.dtype]
    autocast = trainer.precision == "bfloat16" and model.dtype == "float32"
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
            2.0 * trainer.tokens_per_microbatch * per_token * (5 if autocast else 4)
        ),
        "Python and its libraries": _LIBRARIES,
    }
