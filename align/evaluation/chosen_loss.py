"""Held-out loss on preferred responses: what a method costs in likelihood (its alignment tax)."""

from __future__ import annotations

import torch
from torch import Tensor

from align.data import Preferences
from align.data.examples import tokenize
from align.model.batch import Batch
from align.model.devices import moved
from align.model.policy import Policy

__all__ = ["chosen_loss", "chosen_nll"]


def chosen_loss(policy: Policy, data: Preferences, *, max_length: int) -> float | None:
    """``−Σ log π(y⁺|x) / Σ |y⁺|``, nats per token of the chosen responses; None where there is none."""
    asked = chosen_nll(policy, data, max_length=max_length)
    return None if asked is None else float(asked[0].sum() / asked[1].sum())


@torch.no_grad()
def chosen_nll(policy: Policy, data: Preferences, *, max_length: int) -> tuple[Tensor, Tensor] | None:
    """``−log π(y⁺|x)`` in nats and ``|y⁺|`` in tokens of each chosen response; None where there is none."""
    if not any(data.dataset["chosen"]):
        return None
    examples = tokenize(
        data, policy.tokenizer, max_length=max_length, unit="demonstration", max_rejected=1.0, may_be_empty=True
    )
    if not len(examples):
        return None
    batch = Batch.from_examples(examples)

    def ask(part: Batch) -> Batch:
        logp_PKT = policy.logprobs(part).logp_PKT
        mask_PKT = moved(part.mask_PKT, logp_PKT.device)
        return part.with_columns(
            nll_PK=-torch.where(mask_PKT, logp_PKT, 0).sum(-1), count_PK=mask_PKT.sum(-1).to(logp_PKT.dtype)
        )

    with policy.use("policy"):
        asked = policy.in_micro_batches(batch, ask)
    return asked["nll_PK"].sum(-1), asked["count_PK"].sum(-1)
