"""Win rates over the start model as they would be with answers of equal length.

As AlpacaEval 2 does (Dubois et al. 2024, arXiv:2404.04475), a logistic model of the wins has a term for the difference
in length, and the rate is read where that is 0::

    P(method m beats the start on prompt i) = σ(θ_m + φ₁·z_mi + φ₂·tanh z_mi),  z = Δ / sd Δ,     rate_m = σ(θ_m)

AlpacaEval has the second term alone; with the first a judge who goes on to prefer more length is followed too. φ, the
judge's taste for length, is shared by all methods: one method alone whose answers are all longer by the same amount
does not tell length from merit. A ridge of one observation's weight keeps θ finite where a method always wins.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import norm, t

from align.evaluation.statistics import Estimate, ordered_right

Array = NDArray[np.float64]

_RESAMPLES = 200
_RIDGE = 1.0
_Z = float(norm.ppf(0.975))


def length_controlled(differences: Mapping[str, Array], longer: Mapping[str, Array]) -> dict[str, Estimate]:
    """Return the length-controlled win rate of each method.

    Args:
        differences: Score (S, N) minus that of the start on the same prompt and run.
        longer: Tokens (S, N) minus those of the start's answer.

    The interval adds, on the scale of θ, the variance over N prompts (200 bootstrap samples of them) and that over
    S runs with Student's quantile of S − 1 degrees of freedom; each has the residuals, so it is rather too wide.
    """
    names = list(differences)
    runs, n = differences[names[0]].shape
    won_MSN = np.stack([ordered_right(np.round(differences[name], 9)) for name in names])
    longer_MSN = np.stack([np.asarray(longer[name], dtype=np.float64) for name in names])
    spread = float(longer_MSN.std())
    z_MSN = longer_MSN / spread if spread > 0 else np.zeros_like(longer_MSN)
    x_MSNF = np.stack([z_MSN, np.tanh(z_MSN)], axis=-1)
    theta_M = _fit(won_MSN, x_MSNF)
    rng = np.random.default_rng(0)
    drawn = [rng.integers(n, size=n) for _ in range(_RESAMPLES)]
    of_prompts_M = np.var([_fit(won_MSN[..., places], x_MSNF[:, :, places]) for places in drawn], axis=0, ddof=1)
    half_M = _Z * np.sqrt(of_prompts_M)
    if runs > 1:
        by_run_SM = np.stack([_fit(won_MSN[:, [s]], x_MSNF[:, [s]]) for s in range(runs)])
        of_runs_M = by_run_SM.var(0, ddof=1) / runs
        half_M = np.sqrt(half_M**2 + float(t.ppf(0.975, runs - 1)) ** 2 * of_runs_M)
    return {
        name: Estimate(float(expit(theta)), float(expit(theta - half)), float(expit(theta + half)), n, runs)
        for name, theta, half in zip(names, theta_M, half_M, strict=True)
    }


def _fit(won_MSN: Array, x_MSNF: Array) -> Array:
    """θ (M,) by Newton's method on the penalised likelihood, a tie as half a win."""
    methods, features = len(won_MSN), x_MSNF.shape[-1]
    y_MR, x_MRF = won_MSN.reshape(methods, -1), x_MSNF.reshape(methods, -1, features)
    beta = np.zeros(methods + features)
    hessian = np.zeros((len(beta), len(beta)))
    for _ in range(50):
        p_MR = expit(beta[:methods, None] + x_MRF @ beta[methods:])
        error_MR, weight_MR = y_MR - p_MR, p_MR * (1 - p_MR)
        gradient = np.append(error_MR.sum(1), np.einsum("mr,mrf->f", error_MR, x_MRF)) - _RIDGE * beta
        hessian[range(methods), range(methods)] = weight_MR.sum(1)
        hessian[:methods, methods:] = np.einsum("mr,mrf->mf", weight_MR, x_MRF)
        hessian[methods:, :methods] = hessian[:methods, methods:].T
        hessian[methods:, methods:] = np.einsum("mr,mrf,mrg->fg", weight_MR, x_MRF, x_MRF)
        step = np.linalg.solve(hessian + _RIDGE * np.eye(len(beta)), gradient)
        beta = beta + step
        if float(np.abs(step).max()) < 1e-8:
            break
    return beta[:methods]
