"""Proximal policy optimisation and its critic-free relatives, one module each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from align.system.lazy import lazy

if TYPE_CHECKING:
    from methods.ppo.cispo import CISPO
    from methods.ppo.dapo import DAPO
    from methods.ppo.dr_grpo import DrGRPO
    from methods.ppo.grpo import GRPO
    from methods.ppo.gspo import GSPO
    from methods.ppo.ppo import PPO
    from methods.ppo.reinforce_pp import ReinforcePP
    from methods.ppo.rloo import RLOO

__all__ = ["CISPO", "DAPO", "GRPO", "GSPO", "PPO", "RLOO", "DrGRPO", "ReinforcePP"]

__getattr__ = lazy(
    "methods.ppo",
    {
        "CISPO": "methods.ppo.cispo",
        "DAPO": "methods.ppo.dapo",
        "DrGRPO": "methods.ppo.dr_grpo",
        "GRPO": "methods.ppo.grpo",
        "GSPO": "methods.ppo.gspo",
        "PPO": "methods.ppo.ppo",
        "RLOO": "methods.ppo.rloo",
        "ReinforcePP": "methods.ppo.reinforce_pp",
    },
)
