"""The plug-ins of accelerate that a launcher asks for, by the environment that it sets before anything is imported."""

from __future__ import annotations

import os

from align.errors import UserError

__all__ = ["require_no_plugin"]

_PLUGINS = {
    "ACCELERATE_USE_DEEPSPEED": (
        "DeepSpeed, whose engine wraps one model and its optimiser and waits for equally many passes of every process, "
        "where this program trains and asks several roles on one base and deals passes by their length"
    ),
    "ACCELERATE_USE_FSDP": "FSDP, which would share out the adapters too, and on CPUs nothing at all",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM, which has model classes of its own",
}
"""The variable that accelerate sets, and the name with the reason why it is refused."""


def require_no_plugin() -> None:
    """Refuse what `accelerate launch` would hand to a plug-in: this program shards by itself.

    Raises:
        UserError: The environment asks for one.
    """
    for variable, reason in _PLUGINS.items():
        if os.environ.get(variable, "").lower() in ("1", "true"):
            raise UserError(
                f"accelerate is set up for {reason}: start with torchrun or a file of configs/launcher, and where the "
                "model does not fit a device set trainer.sharding=full, which keeps as small a part of it in each "
                "process (docs/scale.md)."
            )
