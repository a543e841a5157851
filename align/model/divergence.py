"""The Kullback-Leibler divergence of the policy from the reference over the whole vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from align.model.batch import Batch
from align.model.forward import Forward
from align.model.logprobs import HeadTransform

if TYPE_CHECKING:
    from align.model.policy import Policy

_TILE = 2**25  # logits of each role that exist at once: 128 MB in float32


@torch.no_grad()
def sequence_kl(policy: Policy, batch: Batch, *, temperature: float) -> Tensor:
    """``Σ_t KL(π(·|x, y_<t) ‖ π_ref(·|x, y_<t))`` of every response, by ``softmax(logits/temperature)``; (P, K).

    By the chain rule its mean over responses that π has drawn at this temperature is the divergence of the whole
    responses, up to the last token that was drawn. It is not the log-ratio of the drawn tokens but its expectation at
    each step (a Rao-Blackwell estimate): never negative, of smaller variance, and 0 where the two agree.
    """
    with policy.use("policy"):
        ours = _logits(policy.forward, batch)
    with policy.use("reference"):
        theirs = _logits(policy.forward, batch)
    vocabulary = int(policy.model.get_output_embeddings().weight.shape[0])  # pyright: ignore[reportArgumentType,reportOptionalMemberAccess]
    size, parts = max(1, _TILE // vocabulary), list[Tensor]()
    for start in range(0, batch.tokens, size):
        tile = slice(start, start + size)
        with policy.use("policy"):
            logp_NV = (ours(tile) / temperature).log_softmax(-1)
        with policy.use("reference"):
            reference_NV = (theirs(tile) / temperature).log_softmax(-1)
        p_NV = logp_NV.exp()
        kl_NV = torch.where(p_NV > 0, p_NV * (logp_NV - reference_NV), 0)  # 0·log 0 = 0
        parts.append(kl_NV.sum(-1).clamp(min=0))  # rounding may give −1e-8
    kl_N = torch.cat(parts) if parts else torch.zeros(0, device=policy.device)
    return policy.forward.rows(batch).placed(kl_N).sum(-1)


def _logits(forward: Forward, batch: Batch) -> Callable[[slice], Tensor]:
    """Run the role in use; return its logits (n, V), float32, of a slice of the response tokens, to ask in that role.

    Only hidden states are kept, where the head can be applied to them.
    """
    rows = forward.rows(batch)
    source_N = rows.source_N
    if not forward.fused_head:
        logits_NV = forward.logits(rows)[source_N]
        return lambda tile: logits_NV[tile].float()
    hidden_ND, transform = forward.hidden(rows)[source_N], HeadTransform.of(forward.model.config.get_text_config())
    head = forward.model.get_output_embeddings()
    return lambda tile: transform(head(hidden_ND[tile]).float())
