"""Proximal policy optimisation and its critic-free relatives RLOO and GRPO, one module each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from align.system.lazy import lazy

if TYPE_CHECKING:
    from methods.ppo.grpo import GRPO
    from methods.ppo.ppo import PPO
    from methods.ppo.rloo import RLOO

__all__ = ["GRPO", "PPO", "RLOO"]

__getattr__ = lazy("methods.ppo", {"GRPO": "methods.ppo.grpo", "PPO": "methods.ppo.ppo", "RLOO": "methods.ppo.rloo"})
