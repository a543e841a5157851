"""The distance of the policy from its reference: estimators per token, and controllers of their weight β.

With ``x_t = log π(y_t) − log π_ref(y_t)`` on tokens that the policy π itself has sampled, each estimator is one number
per token whose expectation is (close to) KL(π‖π_ref) (Schulman, "Approximating KL divergence", 2020). In the *reward*
no gradient flows through it, and ``k1`` is the exact choice. In the *loss* only its gradient counts, plain
(:func:`per_token_kl`) or times the ratio ρ = π/π_old (:func:`methods.ppo.loss.kl_loss`, as in DeepSeek-V3.2 and TRL):

========= =============== ============= ================================== =========================
estimator value           its mean      gradient in the loss, on policy    gradient of ρ·k, any policy
========= =============== ============= ================================== =========================
``k1``    ``x``           exact         0, ``E[∇log π]``: only noise       exact
``k2``    ``½x²``         nearly        exact, ``E[x·∇log π]``             biased
``k3``    ``e⁻ˣ − 1 + x`` exact         that of KL(π_ref‖π) (GRPO)         exact
========= =============== ============= ================================== =========================

*Exact* is ∇KL(π‖π_ref) per token, given the tokens before it. The plain ``k1`` in the loss does not hold the policy
back at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, Protocol

import torch

from align.method.base import require_positive
from methods.ppo.shape_checks import require_like

if TYPE_CHECKING:
    from torch import Tensor

KLEstimator = Literal["k1", "k2", "k3"]


def per_token_kl(logp_PKT: Tensor, reference_PKT: Tensor, mask_PKT: Tensor, estimator: KLEstimator = "k1") -> Tensor:
    """The chosen estimator at each response token in nats, 0 beyond the mask; (P, K, T).

    Its sum over T is the estimate of a response. Gradients flow where the log-probabilities have them.

    Args:
        logp_PKT: Log-probabilities of the policy that sampled the tokens.
        reference_PKT: Those of the reference, at the same sampling temperature.
        mask_PKT: Where a response token exists.
        estimator: ``k1``, ``k2`` or ``k3``; see the module's table.
    """
    require_like(mask_PKT, logp_PKT=logp_PKT, reference_PKT=reference_PKT)
    return _ESTIMATORS[estimator](torch.where(mask_PKT, logp_PKT - reference_PKT, 0))


def k1(log_ratio: Tensor) -> Tensor:
    """``x``: unbiased, negative where the token is more probable under the reference."""
    return log_ratio


def k2(log_ratio: Tensor) -> Tensor:
    """``½x²``: never negative, of low variance, biased by the third order of x."""
    return log_ratio.square() / 2


def k3(log_ratio: Tensor) -> Tensor:
    """``e⁻ˣ − 1 + x``: never negative and unbiased."""
    return torch.expm1(-log_ratio) + log_ratio


_ESTIMATORS: dict[KLEstimator, Callable[[Tensor], Tensor]] = {"k1": k1, "k2": k2, "k3": k3}


class KLController(Protocol):
    """Sets the weight β of the KL penalty from the KL that was measured."""

    @property
    def beta(self) -> float:
        """The weight to use now."""
        ...

    def update(self, kl: float, samples: int) -> None:
        """Take in a roll-out: its mean KL per response in nats and its number of responses, both over all ranks."""
        ...

    def state_dict(self) -> dict[str, float]:
        """State to keep in a checkpoint; JSON."""
        ...


class FixedKL:
    """A constant β without state: a resumed run takes β from its configuration.

    Raises:
        UserError: ``beta`` is negative or not finite.
    """

    def __init__(self, beta: float) -> None:
        if beta != 0:
            require_positive("the KL penalty", beta=beta)
        self.beta = beta

    def update(self, kl: float, samples: int) -> None:
        """Do nothing."""

    def state_dict(self) -> dict[str, float]:
        """Return an empty state."""
        return {}


class AdaptiveKL:
    """β moves until the KL per response is at its target (Ziegler et al. 2019, section 2.2, and its code).

    ``e = clip(KL/target − 1, −.2, .2);  β ← β·(1 + e·samples/horizon)``.

    Args:
        beta: β at the start.
        target: Mean KL(π‖π_ref) of a whole response to steer to, in nats.
        horizon: Responses in which β may change by about a fifth of its value.

    Raises:
        UserError: An argument is not a finite number above 0.
    """

    def __init__(self, beta: float, *, target: float = 6.0, horizon: float = 10_000) -> None:
        require_positive("the adaptive KL controller", beta=beta, kl_target=target, kl_horizon=horizon)
        self.beta = beta
        self.target = target
        self.horizon = horizon

    def update(self, kl: float, samples: int) -> None:
        """Move β by the mean KL per response of a roll-out with this many responses, both over all ranks.

        Departure from the paper: more responses than the horizon count as one horizon, since beyond five horizons the
        formula would make β negative.
        """
        assert math.isfinite(kl), f"KL is {kl}"
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        self.beta *= 1 + error * min(samples / self.horizon, 1.0)

    def state_dict(self) -> dict[str, float]:
        """The current β; target and horizon are configuration."""
        return {"beta": self.beta}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Continue from a saved β."""
        self.beta = float(state["beta"])
