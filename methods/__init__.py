"""The training methods: objective, loss and defaults of each in a module of its own.

They are found by name through the ``align.methods`` entry points; other packages add theirs the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from align.system.lazy import lazy

if TYPE_CHECKING:
    from methods.bco import BCO
    from methods.cpo import CPO
    from methods.dpo import DPO
    from methods.kto import KTO
    from methods.online_dpo import OnlineDPO
    from methods.orpo import ORPO
    from methods.ppo.cispo import CISPO
    from methods.ppo.dapo import DAPO
    from methods.ppo.dr_grpo import DrGRPO
    from methods.ppo.grpo import GRPO
    from methods.ppo.gspo import GSPO
    from methods.ppo.ppo import PPO
    from methods.ppo.reinforce_pp import ReinforcePP
    from methods.ppo.rloo import RLOO
    from methods.rft.rft import RFT
    from methods.rrhf import RRHF
    from methods.sft import SFT
    from methods.simpo import SimPO
    from methods.slic import SLiC

__all__ = [
    "BCO",
    "CISPO",
    "CPO",
    "DAPO",
    "DPO",
    "GRPO",
    "GSPO",
    "KTO",
    "ORPO",
    "PPO",
    "RFT",
    "RLOO",
    "RRHF",
    "SFT",
    "DrGRPO",
    "OnlineDPO",
    "ReinforcePP",
    "SLiC",
    "SimPO",
]

__getattr__ = lazy(
    "methods",
    {
        "BCO": "methods.bco",
        "CISPO": "methods.ppo.cispo",
        "CPO": "methods.cpo",
        "DAPO": "methods.ppo.dapo",
        "DPO": "methods.dpo",
        "DrGRPO": "methods.ppo.dr_grpo",
        "GRPO": "methods.ppo.grpo",
        "GSPO": "methods.ppo.gspo",
        "KTO": "methods.kto",
        "ORPO": "methods.orpo",
        "OnlineDPO": "methods.online_dpo",
        "PPO": "methods.ppo.ppo",
        "RFT": "methods.rft.rft",
        "RLOO": "methods.ppo.rloo",
        "RRHF": "methods.rrhf",
        "ReinforcePP": "methods.ppo.reinforce_pp",
        "SFT": "methods.sft",
        "SLiC": "methods.slic",
        "SimPO": "methods.simpo",
    },
)
