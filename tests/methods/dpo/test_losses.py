"""Every loss of ``method=dpo`` against TRL's own function on the same tensors, value and gradient, ragged lengths."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from align.data import Preferences
from align.errors import UserError
from align.method.base import Method
from align.model.batch import Batch
from align.model.forward import Logprobs
from methods.dpo import losses
from methods.dpo.dpo import DPO
from methods.dpo.loss_table import LOSSES
from methods.dpo.scores import divergence_score
from methods.dpo.transport import at_same_place
from tests.methods import trl_tensors

LENGTHS = [(3, 2), (1, 5), (4, 4), (2, 6), (5, 1)]
MPO = {"loss_type": ("sigmoid", "bco_pair", "sft"), "loss_weights": (0.8, 0.2, 1.0)}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # ours; TRL's
    **{
        name: ({"loss_type": name}, {"loss_types": [name]})
        for name in LOSSES
        if name not in ("cdpo", "sft", "exo_pair", "robust")
    },
    "robust": ({"loss_type": "robust"}, {"loss_types": ["robust"], "label_smoothing": 0.1}),
    "exo_pair": ({"loss_type": "exo_pair"}, {"loss_types": ["exo_pair"], "label_smoothing": 1e-3}),
    "aot, ε": (
        {"loss_type": "aot", "label_smoothing": 0.2},
        {"loss_types": ["aot"], "label_smoothing": 0.2},
    ),
    "aot_unpaired, ε": (
        {"loss_type": "aot_unpaired", "label_smoothing": 0.2},
        {"loss_types": ["aot_unpaired"], "label_smoothing": 0.2},
    ),
    "MPO": (MPO, {"loss_types": list(MPO["loss_type"]), "loss_weights": list(MPO["loss_weights"])}),
    "ld": ({"ld_alpha": 0.4}, {"ld_alpha": 0.4}),
    "ld, per token": ({"ld_alpha": 0.4, "loss_type": "ipo"}, {"ld_alpha": 0.4, "loss_types": ["ipo"]}),
    "wpo": ({"wpo": True}, {"use_weighting": True}),
    "wpo, two losses": (
        {"wpo": True, "loss_type": ("sigmoid", "apo_zero"), "loss_weights": (0.5, 2.0)},
        {"use_weighting": True, "loss_types": ["sigmoid", "apo_zero"], "loss_weights": [0.5, 2.0]},
    ),
    **{
        f"{ours}, {name}": (
            {"divergence": ours, "loss_type": name} | ({"divergence_alpha": 0.7} if ours == "alpha" else {}),
            {"f_divergence_type": theirs, "f_alpha_divergence_coef": 0.7, "loss_types": [name]},
        )
        for ours, theirs in (("forward_kl", "forward_kl"), ("js", "js_divergence"), ("alpha", "alpha_divergence"))
        for name in ("sigmoid", "ipo", "hinge", "sigmoid_norm", "discopop")
    },
}


class Table:
    """A policy that answers from tensors of whole batches, by the rows of the batch."""

    def __init__(self, **tables: Tensor) -> None:
        self.role, self.tables = "policy", tables

    def use(self, role: str) -> Any:
        from contextlib import contextmanager

        @contextmanager
        def using() -> Any:
            before, self.role = self.role, role
            yield self
            self.role = before

        return using()

    def logprobs(self, batch: Batch, *, squares: bool = False) -> Logprobs:
        rows = list(batch.rows)
        tensors = [self.tables[name][rows][:, : batch.K, : batch.T] for name in (self.role, "squares")]
        return Logprobs(tensors[0], squares_PKT=tensors[1] if squares else None)


def world(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Table, Batch]:
    """Random token log-probabilities; padding holds 9 where the mask hides it."""
    generator = torch.Generator().manual_seed(seed)
    batch = Batch(
        prompt_ids=((1, 2),) * len(LENGTHS),
        response_ids=tuple(([3] * a, [3] * b) for a, b in LENGTHS),
        rows=tuple(range(len(LENGTHS))),
        columns={"weight_P": torch.ones(len(LENGTHS))},
    )
    mask_PKT = batch.mask_PKT
    made = {}
    for name in ("policy", "reference", "squares"):
        made[name] = -torch.rand(mask_PKT.shape, generator=generator, dtype=dtype).where(mask_PKT, torch.tensor(-9.0))
    made["policy"].requires_grad_()
    return Table(**made), batch


def whole_step(method: Method, policy: Any, parts: list[Batch], ranks: int = 1) -> Tensor:
    """The loss of a step of several micro-batches, dealt to ranks that know of each other what they tell together."""
    prepared = [[method.prepare(policy, part) for part in parts[rank::ranks]] for rank in range(ranks)]
    told: list[
        dict[int, Any]
    ] = []  # what each rank says in each call of `together`, found by letting them speak in turn

    def run(rank: int) -> list[Batch]:
        calls = iter(range(100))

        def together(make: Callable[[], Any]) -> list[Any]:
            call = next(calls)
            if call == len(told):
                told.append({})
            if rank not in told[call]:
                told[call][rank] = make()
            if len(told[call]) < ranks:
                raise _WaitsError
            return [told[call][each] for each in range(ranks)]

        return list(method.prepare_step(policy, prepared[rank], together))

    with torch.no_grad():
        done: list[list[Batch]] | None = None
        while done is None:
            done = _all(run, ranks)
    flat = [part for parts in done for part in parts]
    weight = sum(method.weight(part) for part in flat)
    return sum((method.loss(policy, part).sums["policy"] for part in flat), torch.zeros(())) / weight


class _WaitsError(Exception):
    """A rank waits for the others."""


def _all(run: Callable[[int], list[Batch]], ranks: int) -> list[list[Batch]] | None:
    out: list[list[Batch]] = []
    for rank in range(ranks):
        try:
            out.append(run(rank))
        except _WaitsError:
            out = []
    return out if len(out) == ranks else None


def gradient(policy: Table, loss: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, policy.tables["policy"])
    return found


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("ways", ["one batch", "micro-batches", "two ranks"])
def test_against_trl(name: str, ways: str) -> None:
    ours, theirs = CASES[name]
    policy, batch = world(dtype=torch.float32 if "alpha" in name else torch.float64)  # TRL's α has no float64
    parts = [batch] if ways == "one batch" else [batch.select([p]) for p in (3, 0, 4, 1, 2)]
    found = whole_step(DPO(beta=0.7, **ours), policy, parts, ranks=2 if ways == "two ranks" else 1)
    tables = policy.tables
    squares_PKT = tables["squares"] if "wpo" in name else None
    expected = trl_tensors.dpo(
        tables["policy"], tables["reference"], batch.mask_PKT, squares_PKT=squares_PKT, beta=0.7, **theirs
    )
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)
    torch.testing.assert_close(gradient(policy, found), gradient(policy, expected), atol=1e-6, rtol=0)


# u = .5, v = −.2, so h = .7: the pair of docs/methods.md.
U, V = 0.5, -0.2
BY_HAND: list[tuple[str, float, float]] = [  # at β = .1 and β = .5
    ("exo_pair", 2.641024, 2.178066),
    ("nca_pair", 1.369288, 1.311107),
    ("bco_pair", 1.351657, 1.220336),
    ("sppo_hard", 43.29, 0.89),
    ("apo_zero", 0.982503, 0.912844),
    ("apo_down", 0.995005, 0.975559),
    ("discopop", 0.878265, 0.704532),
]


@pytest.mark.parametrize(("name", "first", "second"), BY_HAND)
def test_by_hand(name: str, first: float, second: float) -> None:
    for beta, expected in ((0.1, first), (0.5, second)):
        assert pure(name, beta) == pytest.approx(expected, abs=5.1e-7)


def pure(name: str, beta: float) -> float:
    u, v = torch.tensor(U, dtype=torch.float64), torch.tensor(V, dtype=torch.float64)
    match name:
        case "exo_pair":
            return losses.exo_pair_loss(u - v, beta, math.log(999)).item()
        case "discopop":
            return losses.discopop_loss(u - v, beta, 0.05).item()
        case _:
            return getattr(losses, f"{name}_loss")(u, v, beta).item()


# The pair of docs/methods.md with its tokens: chosen S −3.0, rejected −1.2; reference −3.5 and −1.0.
POLICY = [[[-0.5, -1.0, -1.5], [-0.8, -0.4]]]
REFERENCE = [[[-1.0, -1.0, -1.5], [-0.4, -0.6]]]


@pytest.mark.parametrize(
    ("settings", "first", "second"),
    [
        ({"loss_type": "sigmoid_norm"}, 0.679903, 0.628701),  # h = .5/3 + .2/2
        ({"ld_alpha": 0.4}, 0.658760, 0.533382),  # the third token has the same log-probability under both
        ({"divergence": "forward_kl"}, 0.662876, 0.551198),  # h = e^.2 − e^−.5 = .614872
        ({"divergence": "js"}, 0.677075, 0.615410),  # h = log σ(.5) − log σ(−.2) = .324062
        ({"divergence": "alpha"}, 0.661043, 0.543218),  # h = 2·(e^.1 − e^−.25) = .652740
        ({"loss_type": "cdpo", "soft_labels": 2.0}, 0.677585, 0.627512),  # scores 2 and 0: ε = σ(−1) = .268941
    ],
)
def test_by_hand_from_tokens(
    settings: dict[str, Any], first: float, second: float, stub: Any, like: Callable[..., Batch]
) -> None:
    for beta, expected in ((0.1, first), (0.5, second)):
        batch = like(POLICY).with_columns(score_PK=torch.tensor([[2.0, 0.0]]))
        found = whole_step(DPO(beta=beta, **settings), stub(policy=POLICY, reference=REFERENCE), [batch])
        assert found.item() == pytest.approx(expected, abs=5.1e-7)


def test_quantiles() -> None:
    """x sorted is 1 2 3, y sorted 10 20 30; equal numbers keep the order of their keys."""
    values = {7: (2.0, 30.0), 3: (1.0, 20.0), 5: (3.0, 10.0)}
    assert at_same_place(values) == {7: (20.0, 3.0), 3: (10.0, 2.0), 5: (30.0, 1.0)}
    assert at_same_place({1: (0.0, 5.0), 0: (0.0, 4.0)}) == {0: (4.0, 0.0), 1: (5.0, 0.0)}


def test_alpha_has_its_two_limits() -> None:
    ratio = torch.linspace(-3, 3, 7, dtype=torch.float64)
    near_one, near_zero = (divergence_score(ratio, "alpha", alpha) for alpha in (1 + 2e-6, 1e-9))
    torch.testing.assert_close(near_one, ratio, atol=1e-4, rtol=0)
    torch.testing.assert_close(near_zero, divergence_score(ratio, "forward_kl", 0.5), atol=1e-6, rtol=0)


@pytest.mark.parametrize("missing", ["chosen", "rejected"])
def test_a_score_is_missing(missing: str) -> None:
    row = {"prompt": "p", "chosen": "a", "rejected": "b", "chosen_score": 2.0, "rejected_score": 1.0}
    good = Preferences.from_rows([row, {**row, "prompt": "q"}])
    bad = Preferences.from_rows([row, {**row, "prompt": "q", f"{missing}_score": None}])
    method = DPO(loss_type="cdpo", soft_labels=1.0)
    assert method.learns_from(good) is good
    with pytest.raises(UserError, match=rf"both answers, but {missing}_score is missing at rows:2;"):
        method.learns_from(bad)
    assert DPO().learns_from(bad) is bad


def test_scores_far_apart() -> None:
    """ε = σ(∓1000) is 0 or 1 in any precision: KL(q ‖ p) is then q's weight on the other side times 1000, nearly."""
    h = torch.tensor([0.7], requires_grad=True)
    for label, wrong in ((1000.0, 1), (-1000.0, -1)):
        loss = losses.exo_pair_loss(h, 1.0, label)
        q = torch.sigmoid(torch.tensor(0.7))
        other = float(1 - q if wrong == 1 else q)
        entropy = -float(q * q.log() + (1 - q) * (1 - q).log())
        assert loss.item() == pytest.approx(1000 * other - entropy, rel=1e-6)
        (slope,) = torch.autograd.grad(loss.sum(), h)
        assert math.isfinite(slope.item())
    assert losses.cdpo_loss(h, 1.0, torch.sigmoid(torch.tensor(-1000.0))).item() == pytest.approx(0.403186, abs=1e-6)


def test_discopop_far_from_the_start() -> None:
    """m·e^−z with m = σ(z/τ) falls to 0 on both sides; left is (1 − m)·(−log σ(z)) = 90 at z = −90."""
    h = torch.tensor([-900.0, 900.0], requires_grad=True)
    loss = losses.discopop_loss(h, 0.1, 0.05)
    assert loss.tolist() == pytest.approx([90.0, 0.0])
    (slope,) = torch.autograd.grad(loss.sum(), h)
    assert slope.tolist() == pytest.approx([-0.1, 0.0])


def test_a_divergence_far_from_the_start_has_a_gradient_whose_norm_is_finite() -> None:
    ratio = torch.tensor([-300.0, -29.0], requires_grad=True)
    (slope,) = torch.autograd.grad(divergence_score(ratio, "forward_kl", 0.5).sum(), ratio)
    assert slope[0] == 0
    assert torch.linalg.vector_norm(1e3 * slope).isfinite()


@pytest.mark.parametrize("weights", [(1.0, math.nan), (0.0, 0.0), (-1.0, 2.0), (1.0, math.inf)])
def test_weights_of_losses_that_teach_nothing(weights: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="must be finite numbers of at least 0, and one of them above 0"):
        DPO(loss_type=("sigmoid", "ipo"), loss_weights=weights)
