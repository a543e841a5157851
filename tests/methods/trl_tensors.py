"""TRL's own loss functions on given tensors: its trainers' `_compute_loss` around a model that answers from a table."""

from __future__ import annotations

import warnings
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from trl import DPOTrainer, KTOTrainer

with warnings.catch_warnings():  # that they may change
    warnings.simplefilter("ignore")
    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer

_COMPUTE = "_compute_loss"
_ACCELERATOR = SimpleNamespace(
    device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x, unwrap_model=lambda x: x
)


def dpo(
    logp_PKT: Tensor, reference_PKT: Tensor, mask_PKT: Tensor, *, squares_PKT: Tensor | None = None, **settings: Any
) -> Tensor:
    """The loss of TRL's DPOTrainer, a mean over pairs, from log-probabilities of chosen (0) and rejected (1) tokens.

    ``settings`` are those of DPOConfig, with its defaults. It sums over padding too, where its model answers 0.
    """
    P, _, T = mask_PKT.shape
    chosen_first = [torch.cat([x[:, 0], x[:, 1]]) for x in (logp_PKT, reference_PKT, mask_PKT.long())]
    logp_RT, reference_RT, mask_RT = chosen_first[0].where(chosen_first[2] > 0, 0), chosen_first[1], chosen_first[2]
    squares_RT = torch.zeros(2 * P, T) if squares_PKT is None else torch.cat([squares_PKT[:, 0], squares_PKT[:, 1]])
    nothing_RT = torch.zeros(2 * P, T)

    def model(**_: Any) -> Any:
        return SimpleNamespace(
            log_probs=logp_RT,
            entropy=nothing_RT,
            mean_logits=nothing_RT,
            is_top1=nothing_RT.bool(),
            log_sum_sq_probs=squares_RT,
        )

    shared: dict[str, Any] = {"beta": 0.1, "label_smoothing": 0.0, "use_weighting": False, "ld_alpha": None}
    shared |= {"f_divergence_type": "reverse_kl", "f_alpha_divergence_coef": 0.5, "loss_types": ["sigmoid"]}
    shared |= {"discopop_tau": 0.05} | settings
    trainer: Any = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=_ACCELERATOR,
        aux_loss_enabled=False,
        precompute_ref_logps=True,
        loss_weights=shared.pop("loss_weights", [1.0] * len(shared["loss_types"])),
        args=SimpleNamespace(discopop_tau=shared.pop("discopop_tau")),
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
        **shared,
    )
    one = torch.zeros(2 * P, 1, dtype=torch.long)  # the prompt
    ld = trainer.ld_alpha
    ref_RT = reference_RT.where(mask_RT > 0, 0)
    sums_R = ref_RT.sum(1) if ld is None else _decoupled(ref_RT, mask_RT, ld)
    inputs = {
        "input_ids": torch.cat([one, mask_RT], 1),
        "attention_mask": torch.cat([one + 1, mask_RT], 1),
        "completion_mask": torch.cat([one, mask_RT], 1),
        "ref_chosen_logps": sums_R[:P],
        "ref_rejected_logps": sums_R[P:],
    }
    compute_loss: Any = getattr(DPOTrainer, _COMPUTE)
    return compute_loss(trainer, model, inputs, False)


def _decoupled(logp_RT: Tensor, mask_RT: Tensor, alpha: float) -> Tensor:
    """The reference sums that TRL precomputes for LD-DPO: the tokens past the shorter response count α."""
    chosen, rejected = mask_RT.sum(1).chunk(2)
    shared = torch.minimum(chosen, rejected).repeat(2)
    return torch.stack([row[:n].sum() + alpha * row[n:].sum() for row, n in zip(logp_RT, shared.tolist(), strict=True)])


def cpo(S_PK: Tensor, **settings: Any) -> Tensor:
    """The preference part of the loss of TRL's CPOTrainer, a mean over pairs; sums or means as its loss type wants."""
    shared = {"beta": 0.1, "label_smoothing": 0.0, "simpo_gamma": 0.5, "alpha": 0.0, "loss_type": "sigmoid"}
    trainer: Any = SimpleNamespace(accelerator=_ACCELERATOR, **{**shared, **settings})
    cpo_loss: Any = CPOTrainer.cpo_loss
    return cpo_loss(trainer, S_PK[:, 0], S_PK[:, 1])[0].mean()


def orpo(M_PK: Tensor, beta: float) -> Tensor:
    """The odds-ratio part of the loss of TRL's ORPOTrainer, to be subtracted."""
    trainer: Any = SimpleNamespace(accelerator=_ACCELERATOR, beta=beta)
    odds_ratio_loss: Any = ORPOTrainer.odds_ratio_loss
    return odds_ratio_loss(trainer, M_PK[:, 0], M_PK[:, 1])[0].mean()


def kto(
    S_N: Tensor, reference_N: Tensor, good: list[bool], kl_N: Tensor, reference_kl_N: Tensor, **settings: Any
) -> Tensor:
    """The loss of TRL's KTOTrainer, a mean over answers, from summed log-probabilities, also of mismatched ones."""
    shared = {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0, "loss_type": "kto"} | settings
    N = len(good)
    trainer: Any = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=_ACCELERATOR,
        aux_loss_enabled=False,
        precompute_ref_logps=True,
        calculate_KL=shared["loss_type"] == "kto",
        _compute_kl_logps=lambda *_: kl_N,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
        **shared,
    )
    ids = torch.zeros(N, 2, dtype=torch.long)  # a prompt of one token, an answer of one with the sum
    out = SimpleNamespace(log_probs=S_N[:, None], entropy=torch.zeros(N, 1), mean_logits=torch.zeros(N, 1))
    inputs = {"input_ids": ids, "attention_mask": ids + 1, "completion_mask": torch.tensor([[0, 1]] * N)}
    inputs |= {"label": torch.tensor(good), "ref_logps": reference_N, "ref_KL_logps": reference_kl_N}
    compute_loss: Any = getattr(KTOTrainer, _COMPUTE)
    return compute_loss(trainer, lambda **_: out, inputs, False)
