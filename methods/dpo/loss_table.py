"""The table of losses that ``method=dpo`` chooses from by name, each a function of :mod:`methods.dpo.losses`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from methods.dpo import losses

if TYPE_CHECKING:
    from torch import Tensor

LossName = Literal[
    "sigmoid",
    "cdpo",
    "robust",
    "ipo",
    "hinge",
    "sigmoid_norm",
    "exo_pair",
    "nca_pair",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
]


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Scores of the pairs of a batch, all (P,), and the settings of the losses."""

    u: Tensor
    """Scores of the chosen responses, per token where the loss is."""
    v: Tensor
    """Scores of the rejected ones."""
    beta: float
    label: float | Tensor
    """Log-odds of the label being right, ``log((1−ε)/ε)``; ∞ where no label is wrong."""
    tau: float
    nll: Tensor
    """Negative log-likelihood of the chosen responses, scaled so that its mean over pairs is that over their tokens."""
    quantiles: tuple[Tensor, Tensor]
    """Of ``aot`` its own number and the matched one, of ``aot_unpaired`` the two matched ones; unused by others."""

    @property
    def epsilon(self) -> Tensor:
        """Share of flipped labels."""
        label = self.label if isinstance(self.label, torch.Tensor) else self.u.new_full((), self.label)
        return torch.sigmoid(-label)

    @property
    def h(self) -> Tensor:
        """Difference of the scores."""
        return self.u - self.v


@dataclass(frozen=True, kw_only=True)
class PairwiseLoss:
    """A loss of the table."""

    of: Callable[[Pairs], Tensor]
    smoothing: float | None = None
    """Default of ε; None: it has none."""
    per_token: bool = False
    """Scores are averages per token."""
    of_difference: bool = True
    """A function of h alone, in which log Z(x) of any divergence cancels."""
    sorts: bool = False
    """Responses are compared that stand at the same place once the whole step is sorted."""


LOSSES: dict[str, PairwiseLoss] = {
    "sigmoid": PairwiseLoss(of=lambda x: losses.dpo_loss(x.h, x.beta)),
    "sigmoid_norm": PairwiseLoss(of=lambda x: losses.dpo_loss(x.h, x.beta), per_token=True),
    "cdpo": PairwiseLoss(of=lambda x: losses.cdpo_loss(x.h, x.beta, x.epsilon), smoothing=0.1),
    "robust": PairwiseLoss(of=lambda x: losses.robust_loss(x.h, x.beta, x.epsilon), smoothing=0.1),
    "ipo": PairwiseLoss(of=lambda x: losses.ipo_loss(x.h, x.beta), per_token=True),
    "hinge": PairwiseLoss(of=lambda x: losses.hinge_loss(x.h, x.beta)),
    "exo_pair": PairwiseLoss(of=lambda x: losses.exo_pair_loss(x.h, x.beta, x.label), smoothing=1e-3),
    "discopop": PairwiseLoss(of=lambda x: losses.discopop_loss(x.h, x.beta, x.tau)),
    "nca_pair": PairwiseLoss(of=lambda x: losses.nca_pair_loss(x.u, x.v, x.beta), of_difference=False),
    "bco_pair": PairwiseLoss(of=lambda x: losses.bco_pair_loss(x.u, x.v, x.beta), of_difference=False),
    "sppo_hard": PairwiseLoss(of=lambda x: losses.sppo_hard_loss(x.u, x.v, x.beta), of_difference=False),
    "apo_zero": PairwiseLoss(of=lambda x: losses.apo_zero_loss(x.u, x.v, x.beta), of_difference=False),
    "apo_down": PairwiseLoss(of=lambda x: losses.apo_down_loss(x.u, x.v, x.beta), of_difference=False),
    "sft": PairwiseLoss(of=lambda x: x.nll),
    "aot": PairwiseLoss(
        of=lambda x: losses.aot_loss(*x.quantiles, x.beta, x.epsilon),
        smoothing=0.0,
        of_difference=False,
        sorts=True,
    ),
    "aot_unpaired": PairwiseLoss(
        of=lambda x: losses.aot_unpaired_loss(x.u, x.v, *x.quantiles, x.beta, x.epsilon),
        smoothing=0.0,
        of_difference=False,
        sorts=True,
    ),
}
