"""Proximal policy optimisation and its critic-free relatives RLOO and GRPO, one module each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from methods.ppo.grpo import GRPO
    from methods.ppo.ppo import PPO
    from methods.ppo.rloo import RLOO

__all__ = ["GRPO", "PPO", "RLOO"]


def __getattr__(name: str) -> Any:
    # Loaded when asked for, as in `methods`.
    if name not in __all__:
        raise AttributeError(f"module 'methods.ppo' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"methods.ppo.{name.lower()}"), name)
