"""The training methods: objective, loss and defaults of each in a module of its own.

They are found by name through the ``align.methods`` entry points; other packages add theirs the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from align.system.lazy import lazy

if TYPE_CHECKING:
    from methods.dpo.dpo import DPO
    from methods.dpo.online_dpo import OnlineDPO
    from methods.ppo.cispo import CISPO
    from methods.ppo.dapo import DAPO
    from methods.ppo.dr_grpo import DrGRPO
    from methods.ppo.grpo import GRPO
    from methods.ppo.gspo import GSPO
    from methods.ppo.ppo import PPO
    from methods.ppo.reinforce_pp import ReinforcePP
    from methods.ppo.rloo import RLOO
    from methods.reference_free.cpo import CPO
    from methods.reference_free.orpo import ORPO
    from methods.reference_free.simpo import SimPO
    from methods.rft.rft import RFT
    from methods.rrhf import RRHF
    from methods.sft import SFT
    from methods.slic import SLiC
    from methods.unpaired.bco import BCO
    from methods.unpaired.kto import KTO

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
        "BCO": "methods.unpaired.bco",
        "CISPO": "methods.ppo.cispo",
        "CPO": "methods.reference_free.cpo",
        "DAPO": "methods.ppo.dapo",
        "DPO": "methods.dpo.dpo",
        "DrGRPO": "methods.ppo.dr_grpo",
        "GRPO": "methods.ppo.grpo",
        "GSPO": "methods.ppo.gspo",
        "KTO": "methods.unpaired.kto",
        "ORPO": "methods.reference_free.orpo",
        "OnlineDPO": "methods.dpo.online_dpo",
        "PPO": "methods.ppo.ppo",
        "RFT": "methods.rft.rft",
        "RLOO": "methods.ppo.rloo",
        "RRHF": "methods.rrhf",
        "ReinforcePP": "methods.ppo.reinforce_pp",
        "SFT": "methods.sft",
        "SLiC": "methods.slic",
        "SimPO": "methods.reference_free.simpo",
    },
)
