"""The losses of PPO, RLOO and GRPO, and their metrics.

Losses are per token, (P, K, T), 0 beyond the mask: the caller sums them and divides by the weight of the whole step, so
that the size of micro-batches and the number of ranks never change the result.

Metrics are (sum, weight) pairs, logged as Σsum / Σweight over micro-batches, inner epochs and ranks.

For a policy loss over whole responses, as in TRL's RLOOTrainer, pass the summed log-probabilities as one "token" per
response, (P, K, 1). At ratio 1 its gradient is that of the sum over tokens.

Departure from the papers: log-ratios are clamped to ±20 before the exponential, beyond which the gradient of a clipped
token would be 0·∞.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from align.method.base import Metrics
from align.system.lazy import no_grad
from methods.ppo.kl import KLEstimator, per_token_kl
from methods.ppo.shape_checks import require_like

if TYPE_CHECKING:
    from torch import Tensor

_LOG_RATIO_BOUND = 20.0


def policy_loss(
    logp_PKT: Tensor,
    old_logp_PKT: Tensor,
    advantage_PKT: Tensor,
    mask_PKT: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
    importance_PKT: Tensor | None = None,
) -> Tensor:
    """The clipped surrogate, to be minimised (Schulman et al. 2017, eq. 7); (P, K, T).

    ``ρ = exp(logp − logp_old);  L = max(−A·ρ, −A·clip(ρ, 1 − ε_low, 1 + ε_high))``, and for ``A < 0`` no more than
    ``−A·c`` (dual clip, Ye et al. 2020: without it one token that became likely can outweigh the step).

    Args:
        logp_PKT: Log-probabilities that are trained.
        old_logp_PKT: Those of the policy before the first update of the roll-out.
        advantage_PKT: Advantages A; one per response is expanded over its tokens.
        mask_PKT: Where a response token exists.
        clip_low: ε_low in (0, 1).
        clip_high: ε_high > 0; larger than ``clip_low`` is DAPO's "clip higher".
        dual_clip: c > 1 (3 in the paper), or none. With ``c > 1 + ε_high`` it is TRL's ``delta``.
        importance_PKT: Factors of the loss: :func:`importance_weights` of the old policy against the sampler.
    """
    require_like(mask_PKT, logp_PKT=logp_PKT, old_logp_PKT=old_logp_PKT, advantage_PKT=advantage_PKT)
    assert 0 < clip_low < 1, clip_low
    assert clip_high > 0, clip_high
    ratio_PKT = ratio(logp_PKT, old_logp_PKT, mask_PKT)
    loss_PKT = torch.maximum(-advantage_PKT * ratio_PKT, -advantage_PKT * ratio_PKT.clamp(1 - clip_low, 1 + clip_high))
    if dual_clip is not None:
        assert dual_clip > 1, dual_clip
        bounded_PKT = torch.minimum(loss_PKT, -advantage_PKT * dual_clip)
        loss_PKT = torch.where(advantage_PKT < 0, bounded_PKT, loss_PKT)
    if importance_PKT is not None:
        require_like(mask_PKT, importance_PKT=importance_PKT)
        loss_PKT = loss_PKT * importance_PKT
    return torch.where(mask_PKT, loss_PKT, 0)


def kl_loss(
    logp_PKT: Tensor, old_logp_PKT: Tensor, reference_PKT: Tensor, mask_PKT: Tensor, estimator: KLEstimator = "k3"
) -> Tensor:
    """``ρ·k(logp − logp_ref)``, a KL penalty for the loss, to be multiplied by β (DeepSeek-V3.2, 2025); (P, K, T).

    The gradient flows through ρ too: with ``k1`` or ``k3`` its expectation is ∇KL(π‖π_ref), in later inner epochs as in
    the first (see the table of :mod:`methods.ppo.kl`). Without ρ it is :func:`methods.ppo.kl.per_token_kl`.

    Args:
        logp_PKT: Log-probabilities that are trained.
        old_logp_PKT: Those of the policy that sampled.
        reference_PKT: Those of the reference.
        mask_PKT: Where a response token exists.
        estimator: ``k1`` or ``k3``; ``k2`` is biased here.
    """
    kl_PKT = per_token_kl(logp_PKT, reference_PKT, mask_PKT, estimator)
    require_like(mask_PKT, old_logp_PKT=old_logp_PKT)
    return kl_PKT * ratio(logp_PKT, old_logp_PKT, mask_PKT)


def value_loss(
    value_PKT: Tensor, old_value_PKT: Tensor, return_PKT: Tensor, mask_PKT: Tensor, *, clip: float | None = 0.2
) -> Tensor:
    """The clipped squared error of the value model (lm-human-preferences; Huang et al. 2024); (P, K, T).

    ``½·max((V − ret)², (clip(V, V_old − ε_v, V_old + ε_v) − ret)²)``.

    Args:
        value_PKT: Values that are trained.
        old_value_PKT: Those the advantages were computed with.
        return_PKT: Returns, from :func:`methods.ppo.advantages.gae`.
        mask_PKT: Where a response token exists.
        clip: ε_v in the units of the reward, or none.
    """
    require_like(mask_PKT, value_PKT=value_PKT, old_value_PKT=old_value_PKT, return_PKT=return_PKT)
    value_PKT, old_value_PKT, return_PKT = (  # first, for a NaN beyond the mask would reach the gradient
        torch.where(mask_PKT, x, 0) for x in (value_PKT, old_value_PKT, return_PKT)
    )
    error_PKT = (value_PKT - return_PKT).square()
    if clip is not None:
        error_PKT = torch.maximum(error_PKT, (_near(value_PKT, old_value_PKT, clip) - return_PKT).square())
    return error_PKT / 2


def importance_weights(old_logp_PKT: Tensor, sampler_logp_PKT: Tensor, mask_PKT: Tensor, *, cap: float) -> Tensor:
    """Truncated importance weights ``min(π_old/π_sampler, C)``, 1 beyond the mask, without gradient; (P, K, T).

    They correct for a sampler whose log-probabilities are not the trainer's (Yao et al. 2025; Espeholt et al. 2018).

    Args:
        old_logp_PKT: The trainer's log-probabilities of the sampled tokens, before the first update.
        sampler_logp_PKT: The sampler's.
        mask_PKT: Where a response token exists.
        cap: C ≥ 1.
    """
    require_like(mask_PKT, old_logp_PKT=old_logp_PKT, sampler_logp_PKT=sampler_logp_PKT)
    assert cap >= 1, cap
    log_ratio_PKT = (old_logp_PKT - sampler_logp_PKT).detach()
    return torch.where(mask_PKT, log_ratio_PKT, 0).clamp(max=math.log(cap)).exp()


@no_grad
def policy_metrics(
    logp_PKT: Tensor,
    old_logp_PKT: Tensor,
    advantage_PKT: Tensor,
    mask_PKT: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
) -> Metrics:
    """Distance that updates have moved the policy, averaged over tokens; arguments as for :func:`policy_loss`.

    ``policy/approxkl``: ``½(logp − logp_old)²``, nats per token. ``policy/clipfrac``: share of tokens whose gradient is
    cut off by the clip. ``val/ratio``: mean ρ. ``val/ratio_var``: ``mean (ρ − 1)²``, the variance about the mean on
    policy, which adds up over micro-batches (the variance about the measured mean does not).
    """
    require_like(mask_PKT, logp_PKT=logp_PKT, old_logp_PKT=old_logp_PKT, advantage_PKT=advantage_PKT)
    tokens = mask_PKT.sum()
    ratio_PKT = ratio(logp_PKT, old_logp_PKT, mask_PKT)
    clipped_PKT = ((ratio_PKT < 1 - clip_low) & (advantage_PKT < 0)) | (
        (ratio_PKT > 1 + clip_high) & (advantage_PKT > 0)
    )
    values = {
        "policy/approxkl": (logp_PKT - old_logp_PKT).square() / 2,
        "policy/clipfrac": clipped_PKT.to(ratio_PKT),
        "val/ratio": ratio_PKT,
        "val/ratio_var": (ratio_PKT - 1).square(),
    }
    return {name: (torch.where(mask_PKT, value_PKT, 0).sum(), tokens) for name, value_PKT in values.items()}


@no_grad
def value_metrics(
    value_PKT: Tensor, old_value_PKT: Tensor, return_PKT: Tensor, mask_PKT: Tensor, *, clip: float = 0.2
) -> Metrics:
    """``val/clipfrac``: share of tokens whose value loss is the clipped one; arguments as for :func:`value_loss`."""
    require_like(mask_PKT, value_PKT=value_PKT, old_value_PKT=old_value_PKT, return_PKT=return_PKT)
    near_PKT = _near(value_PKT, old_value_PKT, clip)
    clipped_PKT = (near_PKT - return_PKT).square() > (value_PKT - return_PKT).square()
    return {"val/clipfrac": ((clipped_PKT & mask_PKT).sum(), mask_PKT.sum())}


@no_grad
def explained_variance(value_PKT: Tensor, return_PKT: Tensor, mask_PKT: Tensor, statistics: Tensor) -> Metrics:
    """``val/explained_variance``: ``1 − Σ(ret − V)² / Σ(ret − mean)²`` (lm-human-preferences).

    A perfect value model has 1, a constant 0, a worse model less than 0. An offset of V counts as an error, which
    ``1 − Var(ret − V)/Var(ret)`` would miss. Logged as NaN if all returns are equal.

    Args:
        value_PKT: Values.
        return_PKT: Returns.
        mask_PKT: Where a response token exists.
        statistics: :func:`methods.ppo.advantages.moments` of the returns of the whole roll-out, so that the sums add up
            over micro-batches and ranks.
    """
    require_like(mask_PKT, value_PKT=value_PKT, return_PKT=return_PKT)
    count, total, _ = statistics.to(return_PKT.device).unbind()
    returns, values = return_PKT[mask_PKT].double(), value_PKT[mask_PKT].double()
    spread = (returns - total / count).square().sum()
    return {"val/explained_variance": (spread - (returns - values).square().sum(), spread)}


def ratio(logp_PKT: Tensor, old_logp_PKT: Tensor, mask_PKT: Tensor) -> Tensor:
    """``ρ = exp(logp − logp_old)``, 1 beyond the mask; the exponent is clamped to ±20."""
    log_ratio_PKT = torch.where(mask_PKT, logp_PKT - old_logp_PKT, 0)
    return log_ratio_PKT.clamp(-_LOG_RATIO_BOUND, _LOG_RATIO_BOUND).exp()


def _near(value_PKT: Tensor, old_value_PKT: Tensor, clip: float) -> Tensor:
    """``clip(V, V_old − ε, V_old + ε)``, which is V itself to the last bit where nothing is clipped."""
    return value_PKT.clamp(old_value_PKT - clip, old_value_PKT + clip)
