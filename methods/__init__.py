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
    from methods.orpo import ORPO
    from methods.ppo.grpo import GRPO
    from methods.ppo.ppo import PPO
    from methods.ppo.rloo import RLOO
    from methods.rft.rft import RFT
    from methods.rrhf import RRHF
    from methods.sft import SFT
    from methods.simpo import SimPO
    from methods.slic import SLiC

__all__ = ["BCO", "CPO", "DPO", "GRPO", "KTO", "ORPO", "PPO", "RFT", "RLOO", "RRHF", "SFT", "SLiC", "SimPO"]

__getattr__ = lazy(
    "methods",
    {
        "BCO": "methods.bco",
        "CPO": "methods.cpo",
        "DPO": "methods.dpo",
        "GRPO": "methods.ppo.grpo",
        "KTO": "methods.kto",
        "ORPO": "methods.orpo",
        "PPO": "methods.ppo.ppo",
        "RFT": "methods.rft.rft",
        "RLOO": "methods.ppo.rloo",
        "RRHF": "methods.rrhf",
        "SFT": "methods.sft",
        "SLiC": "methods.slic",
        "SimPO": "methods.simpo",
    },
)
