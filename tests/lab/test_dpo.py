"""DPO and its losses on whole populations of pairs: gradients by the score function, optima in closed form.

A pair (i, j) of the 15 responses to a prompt is there in both orders, weighted by the share P(i ≻ j) of annotators.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq, linprog
from scipy.special import log_softmax, logsumexp

from methods.dpo.dpo import DPO
from tests.lab.enumeration import Enumeration, kl, normalised, sigmoid
from tests.lab.steps import gradient, minimise, pairs
from tests.lab.tabular import make_policy, set_table, table

BETA, NOISE = 0.5, 0.1
SLOPES: dict[str, Callable[[Any], Any]] = {  # ∂L/∂h
    "sigmoid": lambda h: -BETA * sigmoid(-BETA * h),
    "cdpo": lambda h: -BETA * ((1 - NOISE) * sigmoid(-BETA * h) - NOISE * sigmoid(BETA * h)),
    "robust": lambda h: -BETA * ((1 - NOISE) * sigmoid(-BETA * h) + NOISE * sigmoid(BETA * h)) / (1 - 2 * NOISE),
    "ipo": lambda h: 2 * (h - 1 / (2 * BETA)),
    "hinge": lambda h: np.where(BETA * h < 1, -BETA, 0.0),
}


def _bco(u: Any, v: Any) -> tuple[Any, Any]:
    return -BETA * sigmoid(-BETA * u), BETA * sigmoid(BETA * v)


def _exo(h: Any) -> Any:  # q = σ(βh), dq/dh = βq(1 − q); L′ = dq/dh·(log q/(1 − q) − log (1 − ε)/ε)
    q = sigmoid(BETA * h)
    return BETA * q * (1 - q) * (BETA * h - np.log((1 - NOISE) / NOISE))


def _discopop(h: Any) -> Any:
    z, tau = BETA * h, 0.5
    m = sigmoid(z / tau)
    parts = -np.log(sigmoid(z)), np.exp(-z)
    return BETA * ((m * (1 - m) / tau) * (parts[1] - parts[0]) - (1 - m) * sigmoid(-z) - m * np.exp(-z))


def _bump(x: Any) -> Any:
    """``dσ(βx)/dx``."""
    return BETA * sigmoid(BETA * x) * sigmoid(-BETA * x)


SLOPES.update(
    {
        "exo_pair": _exo,
        "discopop": _discopop,
        "sigmoid_norm": SLOPES["sigmoid"],
        "forward_kl": SLOPES["sigmoid"],
        "js": SLOPES["sigmoid"],
        "alpha": SLOPES["sigmoid"],
    }
)
SCORES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any], Callable[[Any], Any]]] = {
    # f′ of the log-ratio, its derivative, and exp of its inverse (α = .4)
    "forward_kl": (lambda x: 1 - np.exp(-x), lambda x: np.exp(-x), lambda s: 1 / (1 - s)),
    "js": (lambda x: np.log(2 * sigmoid(x)), lambda x: sigmoid(-x), lambda s: np.exp(s) / (2 - np.exp(s))),
    "alpha": (
        lambda x: (np.exp(-0.6 * x) - 1) / -0.6,
        lambda x: np.exp(-0.6 * x),
        lambda s: (1 - 0.6 * s) ** (1 / -0.6),
    ),
}
LARGEST = {"forward_kl": 1.0, "js": np.log(2), "alpha": 1 / 0.6}
"""The scores are below it."""
BOTH_SLOPES: dict[str, Callable[[Any, Any], tuple[Any, Any]]] = {  # ∂L/∂u, ∂L/∂v
    "bco_pair": _bco,
    "nca_pair": lambda u, v: (-BETA * sigmoid(-BETA * u) + BETA / 2 * sigmoid(BETA * u), BETA / 2 * sigmoid(BETA * v)),
    "sppo_hard": lambda u, v: (2 * (u - 1 / (2 * BETA)), 2 * (v + 1 / (2 * BETA))),
    "apo_zero": lambda u, v: (-_bump(u), _bump(v)),
    "apo_down": lambda u, v: (_bump(u) - _bump(u - v), _bump(u - v)),
}
METHODS = {
    **{name: DPO(beta=BETA, loss_type=name) for name in (*BOTH_SLOPES, "sigmoid_norm")},  # pyright: ignore[reportArgumentType]
    "exo_pair": DPO(beta=BETA, loss_type="exo_pair", label_smoothing=NOISE),
    "discopop": DPO(beta=BETA, loss_type="discopop", discopop_tau=0.5),
    "forward_kl": DPO(beta=BETA, divergence="forward_kl"),
    "js": DPO(beta=BETA, divergence="js"),
    "alpha": DPO(beta=BETA, divergence="alpha", divergence_alpha=0.4),
    "sigmoid": DPO(beta=BETA),
    "cdpo": DPO(beta=BETA, loss_type="cdpo", label_smoothing=NOISE),
    "robust": DPO(beta=BETA, loss_type="robust", label_smoothing=NOISE),
    "ipo": DPO(beta=BETA, loss_type="ipo"),
    "ipo, sums": DPO(beta=BETA, loss_type="ipo", ipo_sums=True),
    "hinge": DPO(beta=BETA, loss_type="hinge"),
}
PREFERENCES: dict[str, Callable[[Any], Any]] = {  # P(i ≻ j) of r_i − r_j for which the optimum is known
    "sigmoid": sigmoid,
    "cdpo": lambda gap: (sigmoid(gap) - NOISE) / (1 - 2 * NOISE),  # flipped with probability ε they are Bradley–Terry
    "robust": lambda gap: (1 - NOISE) * sigmoid(gap) + NOISE * sigmoid(-gap),  # as the noisy annotators label
    "ipo": sigmoid,
    "ipo, sums": sigmoid,
    "exo_pair": lambda gap: (1 + gap / np.log((1 - NOISE) / NOISE)) / 2,
    **dict.fromkeys(("sigmoid_norm", *SCORES), sigmoid),
}


def scores() -> Any:
    """Differences stay below logit(1 − ε), where a share P(i ≻ j) with cDPO's optimum exists."""
    return np.random.default_rng(5).uniform(-1, 1, size=(3, 15))


@pytest.mark.parametrize("name", METHODS)
def test_gradient(name: str, world: Enumeration, figures: Any) -> None:
    """``∇L = Σ P(i ≻ j)·L′(h)·(∇ log π(y_i) − ∇ log π(y_j)) / Σ P(i ≻ j)``, away from the reference."""
    reference, moved, r_XY = world.random_table(0), world.random_table(1), scores()
    policy = make_policy(world, reference)
    set_table(policy, "policy", moved)
    ratio_XY, score_XYSV = world.logps(moved) - world.logps(reference), world.score_function(moved)
    if name in ("ipo", "sigmoid_norm"):
        ratio_XY, score_XYSV = ratio_XY / world.length_Y, score_XYSV / world.length_Y[:, None, None]
    if name in SCORES:
        of, slope, _ = SCORES[name]
        ratio_XY, score_XYSV = of(ratio_XY), slope(ratio_XY)[..., None, None] * score_XYSV
    share_XYY = sigmoid(r_XY[:, :, None] - r_XY[:, None, :]) * (1 - np.eye(15))
    u_XYY, v_XYY = ratio_XY[:, :, None] + np.zeros((1, 1, 15)), ratio_XY[:, None, :] + np.zeros((1, 15, 1))
    if name in BOTH_SLOPES:
        of_u, of_v = BOTH_SLOPES[name](u_XYY, v_XYY)
    else:
        of_u = SLOPES[name.partition(",")[0]](u_XYY - v_XYY)
        of_v = -of_u
    coefficient_XY = (share_XYY * of_u).sum(2) + (share_XYY * of_v).sum(1)
    expected = np.einsum("xy,xysv->sv", coefficient_XY, score_XYSV) / share_XYY.sum()
    found = gradient(policy, METHODS[name], pairs(world, lambda x, i, j: share_XYY[x, i, j]))
    figures.equal(f"∇, {name}", expected, found, 1e-10)


def closed_form(name: str, world: Enumeration, logref_XY: Any, r_XY: Any) -> Any:
    """``log π*``: ``π_ref·exp(r/β)``, for IPO ``π_ref·exp(P(y ≻ μ)/β)`` with μ uniform (Azar et al. 2023, eq. 10).

    With another divergence ``π_ref·(f′)⁻¹(r/β + c)``, c such that the sum is 1 (Wang et al. 2024).
    """
    if name in SCORES:
        inverse = SCORES[name][2]
        out: list[Any] = []
        for logref, r in zip(logref_XY, r_XY / BETA, strict=True):
            top = LARGEST[name] - r.max()
            c = brentq(lambda c, p=np.exp(logref), r=r: (p * inverse(r + c)).sum() - 1, -1e3, top - 1e-9, xtol=1e-14)
            out.append(logref + np.log(inverse(r + c)))
        return np.array(out)
    if name in ("sigmoid", "cdpo", "robust", "exo_pair"):
        return normalised(logref_XY + r_XY / BETA)
    share_XY = sigmoid(r_XY[:, :, None] - r_XY[:, None, :]).mean(2)
    if name == "ipo, sums":
        return normalised(logref_XY + share_XY / BETA)
    # With averages per token log(π/π_ref)/T is that share (or r) over β, up to a constant that makes the sum 1.
    if name == "sigmoid_norm":
        share_XY = r_XY
    out = [logref + world.length_Y * share / BETA for logref, share in zip(logref_XY, share_XY, strict=True)]
    constants = [brentq(lambda c, o=o: logsumexp(o + c * world.length_Y), -50, 50, xtol=1e-14) for o in out]
    return np.array([o + c * world.length_Y for o, c in zip(out, constants, strict=True)])


@pytest.mark.parametrize("name", PREFERENCES)
def test_optimum(name: str, world: Enumeration, figures: Any) -> None:
    reference, r_XY = world.random_table(0), scores()
    policy = make_policy(world, reference)
    share = PREFERENCES[name]
    population = pairs(world, lambda x, i, j: share(r_XY[x, i] - r_XY[x, j]))
    minimise(policy, METHODS[name], population, tolerance=1e-7)
    expected = closed_form(name, world, world.logps(reference), r_XY)
    found = kl(world.logps(table(policy)), expected)
    figures.equal(f"KL(π ‖ π*) in nats, three prompts, {name}", np.zeros(3), found, 1e-3)


def test_hinge_optimum(world: Enumeration, figures: Any) -> None:
    """The hinge is a linear programme in ``f = log π/π_ref``; its value is the loss at its solution, the least."""
    reference, r_XY = world.random_table(0), scores()
    share_XYY = sigmoid(r_XY[:, :, None] - r_XY[:, None, :]) * (1 - np.eye(15))
    policy = make_policy(world, reference)
    batch = pairs(world, lambda x, i, j: share_XYY[x, i, j])
    value, logit_XY = 0.0, world.logps(reference)
    for x in range(3):
        first, second = np.nonzero(share_XYY[x])
        n = len(first)  # max(0, 1 − β(f_i − f_j)) is the smallest slack ≥ 0 that is ≥ 1 − β(f_i − f_j)
        rows = np.concatenate([-BETA * (np.eye(15)[first] - np.eye(15)[second]), -np.eye(n)], axis=1)
        costs = np.concatenate([np.zeros(15), share_XYY[x, first, second]])
        bounds = [(None, None)] * 15 + [(0, None)] * n
        solved = linprog(costs, A_ub=rows, b_ub=-np.ones(n), bounds=bounds)
        value += solved.fun
        logit_XY[x] += solved.x[:15]
    set_table(policy, "policy", world.table_of(normalised(logit_XY)))
    prepared = METHODS["hinge"].prepare(policy, batch)
    found = METHODS["hinge"].loss(policy, prepared).sums["policy"].item()
    figures.equal("loss at the optimum, hinge", value, found, 1e-8)
    rng = np.random.default_rng(0)
    at_optimum = table(policy)
    for scale in (1e-4, 1e-2, 1.0):
        set_table(policy, "policy", at_optimum + scale * rng.normal(size=at_optimum.shape))
        assert METHODS["hinge"].loss(policy, prepared).sums["policy"].item() >= value - 1e-8


def test_robust_loss_is_unbiased_under_noise(world: Enumeration, figures: Any) -> None:
    """The gradient of the robust loss on noisy labels is that of DPO on clean ones (Chowdhury et al. 2024)."""
    reference, moved, r_XY = world.random_table(0), world.random_table(1), scores()
    policy = make_policy(world, reference)
    set_table(policy, "policy", moved)
    clean = gradient(policy, METHODS["sigmoid"], pairs(world, lambda x, i, j: float(sigmoid(r_XY[x, i] - r_XY[x, j]))))
    noisy = pairs(world, lambda x, i, j: PREFERENCES["robust"](r_XY[x, i] - r_XY[x, j]))
    figures.equal("robust under noise less DPO without", clean, gradient(policy, METHODS["robust"], noisy), 1e-10)


@pytest.mark.parametrize("name", ["LD-DPO", "WPO"])
def test_gradient_of_tokens(name: str, world: Enumeration, figures: Any) -> None:
    """LD-DPO weighs the tokens past the shorter response; WPO the pair, by ``Π exp(mean (log π − log Σ π²))``."""
    reference, moved, r_XY, alpha = world.random_table(0), world.random_table(1), scores(), 0.4
    policy = make_policy(world, reference)
    set_table(policy, "policy", moved)
    logp, logref = world.token_logps(moved), world.token_logps(reference)
    score_XYT: dict[Any, tuple[int, Any]] = {}
    for x, y, t, s, gradient_V in world.token_scores(moved):
        score_XYT[x, y, t] = (s, gradient_V)
    squares_S = np.log((np.exp(log_softmax(moved, axis=-1)) ** 2).sum(1))
    expected, total = np.zeros_like(moved), 0.0
    for x in range(3):
        for i in range(15):
            for j in set(range(15)) - {i}:
                shared = min(len(logp[x][i]), len(logp[x][j])) if name == "LD-DPO" else 99
                weigh = lambda t, shared=shared: 1.0 if t < shared else alpha  # noqa: E731
                ratio = [
                    sum(weigh(t) * (a - b) for t, (a, b) in enumerate(zip(logp[x][y], logref[x][y], strict=True)))
                    for y in (i, j)
                ]
                share = sigmoid(r_XY[x, i] - r_XY[x, j])
                total += share
                slope = share * SLOPES["sigmoid"](ratio[0] - ratio[1])
                if name == "WPO":
                    for y in (i, j):
                        slope *= np.exp(
                            np.mean([lp - squares_S[score_XYT[x, y, t][0]] for t, lp in enumerate(logp[x][y])])
                        )
                for sign, y in ((1, i), (-1, j)):
                    for t in range(len(logp[x][y])):
                        s, gradient_V = score_XYT[x, y, t]
                        expected[s] += sign * slope * weigh(t) * gradient_V
    method = DPO(beta=BETA, ld_alpha=alpha) if name == "LD-DPO" else DPO(beta=BETA, wpo=True)
    batch = pairs(world, lambda x, i, j: float(sigmoid(r_XY[x, i] - r_XY[x, j])))
    figures.equal(f"∇, {name}", expected / total, gradient(policy, method, batch), 1e-10)


@pytest.mark.parametrize("name", ["aot", "aot_unpaired"])
def test_gradient_of_quantiles(name: str, world: Enumeration, figures: Any) -> None:
    """AOT on every ordered pair: ``Σ L′(x_(k) − y_(k))·(∇x_(k) − ∇y_(k)) / (number of pairs)``, x and y sorted each."""
    reference, moved = world.random_table(0), world.random_table(1)
    policy = make_policy(world, reference)
    set_table(policy, "policy", moved)
    S_XY, ref_XY, score_XYSV = world.logps(moved), world.logps(reference), world.score_function(moved)
    tuples = [(x, i, j) for x in range(3) for i in range(15) for j in range(15) if i != j]
    if name == "aot":
        x_N = [S_XY[x, i] - S_XY[x, j] for x, i, j in tuples]
        y_N = [ref_XY[x, i] - ref_XY[x, j] for x, i, j in tuples]
    else:
        x_N = [S_XY[x, i] - ref_XY[x, i] for x, i, _ in tuples]
        y_N = [S_XY[x, j] - ref_XY[x, j] for x, _, j in tuples]
    expected = np.zeros_like(moved)
    for a, b in zip(np.argsort(x_N, kind="stable"), np.argsort(y_N, kind="stable"), strict=True):
        slope = SLOPES["cdpo"](x_N[a] - y_N[b])
        x, i, j = tuples[a]
        expected += slope * (score_XYSV[x, i] - (score_XYSV[x, j] if name == "aot" else 0))
        if name == "aot_unpaired":
            x, _, j = tuples[b]
            expected -= slope * score_XYSV[x, j]
    method = DPO(beta=BETA, loss_type=name, label_smoothing=NOISE)  # pyright: ignore[reportArgumentType]
    found = gradient(policy, method, pairs(world, lambda *_: 1.0))
    figures.equal(f"∇, {name}", expected / len(tuples), found, 1e-10)
