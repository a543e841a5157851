"""RLOO: REINFORCE leave-one-out (Ahmadian et al. 2024, "Back to Basics").

For K responses to a prompt, each with its KL to the reference subtracted from its score::

    R_i = r(x, y_i) − β·Σ_t (logp − logp_ref)_t
    A_i = R_i − 1/(K−1)·Σ_{j≠i} R_j                     the same for every token of y_i
    L   = mean over tokens of max(−A·ρ, −A·clip(ρ, 1 − ε, 1 + ε))

With one pass and one minibatch, the default, ρ is 1 and L has the gradient of REINFORCE. There is no value role, no
discount and no whitening. The rest is in :mod:`methods.ppo.policy_gradient`.

Departures: the loss is a mean over the tokens of a step, where the paper sums over each response; a response that was
cut off gets the score −1, as in PPO here (``missing_eos=none`` leaves it its own). The clip acts only with several
passes or minibatches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from align.method.base import Metrics
from methods.ppo.advantages import on_every_token, rloo
from methods.ppo.policy_gradient import PolicyGradient, Rewards, Total

if TYPE_CHECKING:
    from torch import Tensor

    from align.model.batch import Batch


@dataclass(frozen=True, kw_only=True)
class RLOO(PolicyGradient):
    """RLOO: PPO without a value role; a response is compared with the mean score of the others to its prompt."""

    responses: int = 4
    """Responses drawn for each prompt; at least 2."""
    temperature: float = 1.0
    epochs: int = 1

    def advantages(self, batch: Batch, rewards: Rewards, total: Total) -> tuple[dict[str, Tensor], Metrics]:
        """See :func:`leave_one_out`."""
        del total  # a prompt with its responses is on one rank
        return {"advantage_PKT": leave_one_out(batch, rewards)}, {}


def leave_one_out(batch: Batch, rewards: Rewards) -> Tensor:
    """Leave-one-out advantages, each response's repeated at its tokens; (P, K, T)."""
    return on_every_token(rloo(rewards.outcome_PK, batch.valid_PK), batch.mask_PKT)
