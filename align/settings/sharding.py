"""How a frozen base is shared out among the processes."""

from __future__ import annotations

from typing import Literal

from align.errors import UserError

__all__ = ["ShardingName", "require_shardable"]

ShardingName = Literal["none", "node", "full"]


def require_shardable(sharding: ShardingName, *, adapters: bool, quantized: bool) -> None:
    """Raise `UserError` where ``trainer.sharding`` has no frozen base of ordinary weights to share out."""
    if sharding != "none" and not adapters:
        raise UserError(
            f"trainer.sharding={sharding} shares out a frozen base, but adapter=none trains all of it, and without an "
            "adapter none is frozen; use an adapter, or trainer.sharding=none."
        )
    if sharding != "none" and quantized:
        raise UserError(
            f"trainer.sharding={sharding} cannot share out weights of model.quantization=4bit; give one of them up."
        )
