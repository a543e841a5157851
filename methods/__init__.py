"""The training methods: objective, loss and defaults of each in a module of its own.

They are found by name through the ``align.methods`` entry points; other packages add theirs the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from methods.dpo import DPO
    from methods.ppo.grpo import GRPO
    from methods.ppo.ppo import PPO
    from methods.ppo.rloo import RLOO
    from methods.rft.rft import RFT
    from methods.rrhf import RRHF
    from methods.sft import SFT
    from methods.slic import SLiC

__all__ = ["DPO", "GRPO", "PPO", "RFT", "RLOO", "RRHF", "SFT", "SLiC"]

_WHERE = {
    "DPO": "methods.dpo",
    "GRPO": "methods.ppo.grpo",
    "PPO": "methods.ppo.ppo",
    "RFT": "methods.rft.rft",
    "RLOO": "methods.ppo.rloo",
    "RRHF": "methods.rrhf",
    "SFT": "methods.sft",
    "SLiC": "methods.slic",
}


def __getattr__(name: str) -> Any:
    # Loaded when asked for: the command line checks its arguments before torch is imported.
    if name not in _WHERE:
        raise AttributeError(f"module 'methods' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_WHERE[name]), name)
