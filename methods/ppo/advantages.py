"""From the scores of a roll-out to the advantages of its tokens.

Scores are shaped (:func:`missing_eos`, ``overlong_penalty`` of ``reward/verifiers/overlong.py``), put at the last token
(:func:`place_score`) beside a KL penalty per token, and become advantages with a value model (:func:`gae`) or without
one, by comparing the K responses to a prompt (:func:`rloo`, :func:`group`). :func:`whiten` normalises over a whole
roll-out.

Values beyond a mask (NaN too) are never read, and results are 0 there: padding and missing responses change nothing. No
gradient flows through any of this.

Departures: TRL raises for K = 1 in training; here, as in its evaluation, a response without siblings has advantage 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from align.system.lazy import no_grad
from methods.ppo.shape_checks import require_like, require_right_padded

if TYPE_CHECKING:
    from torch import Tensor

MissingEOS = Literal["replace", "subtract", "none"]
GroupScale = Literal["group", "batch", "none"]

GROUP_EPSILON = 1e-4
"""Added to the standard deviation by :func:`group`, as in TRL."""
WHITEN_EPSILON = 1e-8
"""Added to the variance by :func:`whiten`, as in lm-human-preferences and the N+ implementation details."""


def missing_eos(score_PK: Tensor, ended_PK: Tensor, *, how: MissingEOS, value: float) -> Tensor:
    """Scores of responses that were cut off before an end-of-turn token; (P, K).

    ``replace``: ``value`` (usually −1; Huang et al. 2024); ``subtract``: ``score − value`` (``value ≥ 0``); ``none``:
    unchanged.

    Args:
        score_PK: Scores in the scorer's units.
        ended_PK: True where the response has its end-of-turn token.
        how: See above.
        value: See above.
    """
    require_like(ended_PK, score_PK=score_PK)
    if how == "none":
        return score_PK
    if how == "replace":
        return torch.where(ended_PK, score_PK, value)
    assert value >= 0, f"subtracting {value} would reward a missing end"
    return torch.where(ended_PK, score_PK, score_PK - value)


def place_score(score_PK: Tensor, mask_PKT: Tensor) -> Tensor:
    """The score at the last token of its response, 0 elsewhere; (P, K, T)."""
    require_right_padded(mask_PKT)
    length_PK = mask_PKT.sum(-1)
    require_like(length_PK > 0, score_PK=score_PK)
    last_PKT = torch.arange(mask_PKT.shape[-1], device=mask_PKT.device) == length_PK[..., None] - 1
    return torch.where(last_PKT, score_PK[..., None], 0)


def on_every_token(advantage_PK: Tensor, mask_PKT: Tensor) -> Tensor:
    """Advantages, each response's repeated at its tokens, 0 beyond them; (P, K, T)."""
    return torch.where(mask_PKT, advantage_PK[..., None], 0)


def returns_to_go(score_PK: Tensor, penalty_PKT: Tensor, mask_PKT: Tensor) -> Tensor:
    """``score + Σ_{u ≥ t} penalty_u`` of each token, 0 beyond the mask; (P, K, T). ``gae`` with γ = λ = 1 and V = 0."""
    reward_PKT = place_score(score_PK, mask_PKT) + penalty_PKT
    return gae(reward_PKT, torch.zeros_like(reward_PKT), mask_PKT, gamma=1.0, lam=1.0)[0]


def spread(score_PK: Tensor, valid_PK: Tensor) -> Tensor:
    """Largest less smallest score of a prompt's responses, 0 where it has none; (P,)."""
    high_P = torch.where(valid_PK, score_PK, -torch.inf).amax(-1)
    low_P = torch.where(valid_PK, score_PK, torch.inf).amin(-1)
    return (high_P - low_P).clamp(min=0)


@no_grad
def gae(reward_PKT: Tensor, value_PKT: Tensor, mask_PKT: Tensor, *, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016, eq. 16): advantages and returns, each (P, K, T).

    ``δ_t = r_t + γ·V_{t+1} − V_t;  A_t = Σ_{l≥0} (γλ)^l·δ_{t+l};  return_t = A_t + V_t``. The value after the last
    token is 0, whether or not the response has ended.

    Args:
        reward_PKT: Reward of each token (KL penalty, and the score at the last one).
        value_PKT: Value of the state *before* each token.
        mask_PKT: Where a response token exists, padded on the right.
        gamma: Discount γ.
        lam: λ: 1 is the Monte-Carlo return, 0 the one-step error.
    """
    require_right_padded(mask_PKT)
    require_like(mask_PKT, reward_PKT=reward_PKT, value_PKT=value_PKT)
    value_PKT = torch.where(mask_PKT, value_PKT, 0)
    advantage_PKT = torch.zeros_like(value_PKT)
    advantage_PK = next_value_PK = torch.zeros_like(value_PKT[..., 0])
    for t in reversed(range(mask_PKT.shape[-1])):
        delta_PK = reward_PKT[..., t] + gamma * next_value_PK - value_PKT[..., t]
        advantage_PK = torch.where(mask_PKT[..., t], delta_PK + gamma * lam * advantage_PK, 0)
        advantage_PKT[..., t] = advantage_PK
        next_value_PK = value_PKT[..., t]
    return advantage_PKT, advantage_PKT + value_PKT


def moments(x: Tensor, mask: Tensor) -> Tensor:
    """``[count, Σx, Σx²]`` over the mask; float64 (3,). Add them over micro-batches and ranks."""
    require_like(mask, x=x)
    x = x.detach()[mask].double()
    return torch.stack([x.new_tensor(x.numel()), x.sum(), x.square().sum()])


def whiten(x: Tensor, mask: Tensor, statistics: Tensor | None = None, *, shift_mean: bool = True) -> Tensor:
    """``(x − mean) / √(var + 1e-8)`` over the mask with the population variance, 0 beyond it; the shape of x.

    Args:
        x: Advantages, or rewards.
        mask: True where x counts.
        statistics: :func:`moments` of the whole roll-out over all ranks; those of ``x`` where not given.
        shift_mean: True makes the mean 0 (advantages), False keeps it (rewards).
    """
    require_like(mask, x=x)
    count, total, squares = (moments(x, mask) if statistics is None else statistics.to(x.device)).unbind()
    mean = total / count
    variance = (squares / count - mean.square()).clamp(min=0)
    whitened = (x.double() - mean) * torch.rsqrt(variance + WHITEN_EPSILON)
    if not shift_mean:
        whitened = whitened + mean
    return torch.where(mask, whitened, 0).to(x.dtype)


def rloo(score_PK: Tensor, valid_PK: Tensor) -> Tensor:
    """REINFORCE leave-one-out (Ahmadian et al. 2024): the score less the mean of its siblings'; (P, K).

    ``A_i = r_i − 1/(n−1)·Σ_{j≠i} r_j`` over the n responses to the prompt; 0 where n = 1.

    Args:
        score_PK: Scores; with the KL in the reward, less the penalty of the whole response.
        valid_PK: Where a response (with a score) exists.
    """
    centred_PK, count_P1 = _centred(score_PK, valid_PK)
    return centred_PK * count_P1 / (count_P1 - 1).clamp(min=1)  # r_i − mean without i = n/(n−1)·(r_i − mean)


def group(
    score_PK: Tensor, valid_PK: Tensor, *, scale: GroupScale = "group", statistics: Tensor | None = None
) -> Tensor:
    """Group-relative advantages (GRPO, Shao et al. 2024, section 4.1.2); (P, K).

    ``A_i = (r_i − mean) / (std + 1e-4)`` with the mean over the responses to the prompt, and the standard deviation
    (that of a sample, divisor n − 1, as TRL has it) over the same for ``group``, over all responses for ``batch``;
    ``none`` does not divide (Dr. GRPO). 0 for a response without siblings, and where all of them score alike.

    Args:
        score_PK: Scores.
        valid_PK: Where a response (with a score) exists.
        scale: See above.
        statistics: For ``batch``: :func:`moments` of the scores of all ranks; those of ``score_PK`` where not given.
    """
    centred_PK, count_P1 = _centred(score_PK, valid_PK)
    if scale == "none":
        return centred_PK
    if scale == "group":
        std = (centred_PK.square().sum(-1, keepdim=True) / (count_P1 - 1).clamp(min=1)).sqrt()
    else:
        count, total, squares = (
            moments(score_PK, valid_PK) if statistics is None else statistics.to(score_PK.device)
        ).unbind()
        variance = (squares - total.square() / count.clamp(min=1)) / (count - 1).clamp(min=1)
        std = variance.clamp(min=0).sqrt().to(centred_PK)
    return centred_PK / (std + GROUP_EPSILON)


def _centred(score_PK: Tensor, valid_PK: Tensor) -> tuple[Tensor, Tensor]:
    """Scores less the mean of their prompt, and the number of responses to it."""
    require_like(valid_PK, score_PK=score_PK)
    count_P1 = valid_PK.sum(-1, keepdim=True)
    score_PK = torch.where(valid_PK, score_PK, 0)
    mean_P1 = score_PK.sum(-1, keepdim=True) / count_P1
    return torch.where(valid_PK, score_PK - mean_P1, 0), count_P1
