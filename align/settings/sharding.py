"""How a model is shared out among the processes."""

from __future__ import annotations

from typing import Literal

from align.errors import UserError

__all__ = ["ShardingName", "require_shardable", "require_state_in_parts"]

ShardingName = Literal["none", "node", "full"]


def require_shardable(sharding: ShardingName, *, quantized: bool) -> None:
    """Raise `UserError` where ``trainer.sharding`` has no ordinary weights to share out."""
    if sharding != "none" and quantized:
        raise UserError(
            f"trainer.sharding={sharding} cannot share out weights of model.quantization=4bit; give one of them up."
        )


def require_state_in_parts(optimizer: str) -> None:
    """Raise `UserError` where an optimiser cannot train tensors of which a process has only a part."""
    if optimizer == "adamw_8bit":
        raise UserError(
            "trainer.optimizer=adamw_8bit cannot train all parameters where trainer.sharding shares them out; use "
            "adamw, whose state is shared out with them."
        )
