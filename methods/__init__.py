"""The training methods, one file each: loss mathematics and defaults.

They are found by name through the ``align.methods`` entry points; other packages add theirs the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from methods.dpo import DPO
    from methods.ppo.ppo import PPO
    from methods.rft.rft import RFT
    from methods.rrhf import RRHF
    from methods.sft import SFT
    from methods.slic import SLiC

__all__ = ["DPO", "PPO", "RFT", "RRHF", "SFT", "SLiC"]

_WHERE = {
    "DPO": "methods.dpo",
    "PPO": "methods.ppo.ppo",
    "RFT": "methods.rft.rft",
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
