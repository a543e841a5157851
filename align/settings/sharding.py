"""How a model is shared out among the processes."""

from __future__ import annotations

from typing import Literal

from align.errors import UserError

__all__ = ["ShardingName", "require_shardable"]

ShardingName = Literal["none", "node", "full"]


def require_shardable(sharding: ShardingName, *, quantized: bool) -> None:
    """Raise `UserError` where ``trainer.sharding`` has no ordinary weights to share out."""
    if sharding != "none" and quantized:
        raise UserError(
            f"trainer.sharding={sharding} cannot share out weights of model.quantization=4bit; give one of them up."
        )
