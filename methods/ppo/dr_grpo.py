"""Dr. GRPO: GRPO done right (Liu et al. 2025, "Understanding R1-Zero-Like Training", section 3.2).

GRPO divides by the standard deviation of the group, which favours questions that are nearly always or nearly never
answered, and each response by its length, which favours long wrong answers. Without both the step is the policy
gradient, times (K − 1)/K because the mean that is the baseline includes the response itself::

    A_i = r_i − mean r
    L   = 1/K Σ_i 1/T_max Σ_t max(−A·ρ, −A·clip(ρ, 1 − ε, 1 + ε))       T_max = max_new_tokens

There is no KL to a reference (β 0). The rest is that of :mod:`methods.ppo.grpo`.

T_max is a constant, the longest response that may be drawn, as in TRL; the authors' code has it as a setting.
"""

from __future__ import annotations

from dataclasses import dataclass

from methods.ppo.advantages import GroupScale
from methods.ppo.grpo import GRPO
from methods.ppo.policy_gradient import Reduction

__all__ = ["DrGRPO"]


@dataclass(frozen=True, kw_only=True)
class DrGRPO(GRPO):
    """GRPO without its two biases: no division by the group's deviation, nor by a response's length."""

    reduction: Reduction = "constant"
    beta: float = 0.0
    group_scale: GroupScale = "none"
