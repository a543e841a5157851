"""Losses on pairs with a reference: pure functions; :mod:`methods.dpo.loss_table` names them for ``method=dpo``.

u and v are the scores of the chosen and the rejected response: log-ratios ``S − S_ref``, or what another divergence
makes of them (:mod:`methods.dpo.scores`), per token where the table says so; (P,), in nats. h = u − v, z = βh.
ε is the share of flipped labels, one for all pairs or (P,). Each function returns the loss of every pair; (P,).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def dpo_loss(h: Tensor, beta: float) -> Tensor:
    """``−log σ(βh)`` (Rafailov et al. 2023, eq. 7). Its gradient in h is ``−βσ(−βh)``."""
    return -torch.nn.functional.logsigmoid(beta * h)


def cdpo_loss(h: Tensor, beta: float, epsilon: float | Tensor) -> Tensor:
    """Conservative DPO (Mitchell 2023): labels flipped with probability ε, ``−(1−ε)·log σ(βh) − ε·log σ(−βh)``."""
    return (1 - epsilon) * dpo_loss(h, beta) + epsilon * dpo_loss(-h, beta)


def robust_loss(h: Tensor, beta: float, epsilon: float | Tensor) -> Tensor:
    """Robust DPO (Chowdhury et al. 2024, eq. 12): ``[−(1−ε)·log σ(βh) + ε·log σ(−βh)] / (1−2ε)``, ε < ½."""
    return ((1 - epsilon) * dpo_loss(h, beta) - epsilon * dpo_loss(-h, beta)) / (1 - 2 * epsilon)


def ipo_loss(h: Tensor, beta: float) -> Tensor:
    """Identity preference optimisation (Azar et al. 2023, eq. 17): ``(h − 1/(2β))²``; h of means or of sums."""
    return (h - 1 / (2 * beta)) ** 2


def hinge_loss(h: Tensor, beta: float) -> Tensor:
    """Hinge loss of the log-ratio margin (RSO, Liu et al. 2023): ``max(0, 1 − βh)``."""
    return torch.relu(1 - beta * h)


def exo_pair_loss(h: Tensor, beta: float, label: float | Tensor) -> Tensor:
    """EXO (Ji et al. 2024, eq. 16), K = 2: ``KL(q ‖ p)`` of ``q = (σ(z), σ(−z))`` from ``p = (1−ε, ε)``.

    ``label`` is the log-odds of the label being right, ``log((1−ε)/ε)``, of which no ε is too small.
    """
    z, label = beta * h, torch.as_tensor(label, dtype=h.dtype, device=h.device)
    log_sigmoid = torch.nn.functional.logsigmoid
    won, lost = log_sigmoid(z), log_sigmoid(-z)
    return won.exp() * (won - log_sigmoid(label)) + lost.exp() * (lost - log_sigmoid(-label))


def nca_pair_loss(u: Tensor, v: Tensor, beta: float) -> Tensor:
    """NCA (Chen et al. 2024), K = 2: ``−log σ(βu) − ½·log σ(−βu) − ½·log σ(−βv)``."""
    return dpo_loss(u, beta) + (dpo_loss(-u, beta) + dpo_loss(-v, beta)) / 2


def bco_pair_loss(u: Tensor, v: Tensor, beta: float) -> Tensor:
    """BCO (Jung et al. 2024) on pairs, without its shift δ: ``−log σ(βu) − log σ(−βv)``."""
    return dpo_loss(u, beta) + dpo_loss(-v, beta)


def sppo_hard_loss(u: Tensor, v: Tensor, beta: float) -> Tensor:
    """SPPO (Wu et al. 2024, eq. 4.7) with win rates 1 and 0, η = 1/β: ``(u − 1/(2β))² + (v + 1/(2β))²``."""
    return ipo_loss(u, beta) + ipo_loss(-v, beta)


def apo_zero_loss(u: Tensor, v: Tensor, beta: float) -> Tensor:
    """APO-zero (D'Oosterlinck et al. 2024, eq. 7), for chosen better than the policy: ``1 − σ(βu) + σ(βv)``."""
    return torch.sigmoid(-beta * u) + torch.sigmoid(beta * v)


def apo_down_loss(u: Tensor, v: Tensor, beta: float) -> Tensor:
    """APO-down (D'Oosterlinck et al. 2024, eq. 8), for chosen worse than the policy: ``σ(βu) + 1 − σ(βh)``."""
    return torch.sigmoid(beta * u) + torch.sigmoid(-beta * (u - v))


def discopop_loss(h: Tensor, beta: float, tau: float) -> Tensor:
    """Log-ratio modulated loss (DiscoPOP, Lu et al. 2024, eq. 5): ``(1−m)·(−log σ(z)) + m·e^−z, m = σ(z/τ)``."""
    z = beta * h
    left = torch.sigmoid(-z / tau) * dpo_loss(h, beta)
    return left + torch.exp(torch.nn.functional.logsigmoid(z / tau) - z)  # m·e^−z is 0·∞ far below 0


def aot_loss(own: Tensor, matched: Tensor, beta: float, epsilon: float | Tensor) -> Tensor:
    """AOT, paired (Melnyk et al. 2024): :func:`cdpo_loss` of quantiles, ``own`` the policy's ``S_w − S_l``.

    ``matched`` is the reference's, that of the same place once both are sorted (:mod:`methods.dpo.transport`).
    """
    return cdpo_loss(own - matched, beta, epsilon)


def aot_unpaired_loss(
    u: Tensor, v: Tensor, below: Tensor, above: Tensor, beta: float, epsilon: float | Tensor
) -> Tensor:
    """AOT between all chosen and all rejected responses (Melnyk et al. 2024), sorted each.

    ``below`` is the v of the place of u, ``above`` the u of the place of v, both numbers. Each difference is met twice,
    once for each gradient, and counts once in the value.
    """
    both = cdpo_loss(u - below, beta, epsilon) + cdpo_loss(above - v, beta, epsilon)
    return both - both.detach() / 2
