"""A packed row, and a softmax over the whole of it with a dense mask: what both packed attentions are compared with."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from align.model.batch import Batch
from align.model.packed_attention import Piece, Span
from align.model.policy import Policy

TREE = (  # two prompts with branches, one of them far longer, and a row alone
    Piece(Span(0, 5)),
    Piece(Span(5, 3), (Span(0, 5),)),
    Piece(Span(8, 11), (Span(0, 5),)),
    Piece(Span(19, 2)),
    Piece(Span(21, 1), (Span(19, 2),)),
    Piece(Span(22, 4), (Span(19, 2),)),
    Piece(Span(26, 9)),
)
TOKENS = 35


def dense(pieces: tuple[Piece, ...], window: int | None, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The oracle: each query's keys one after the other, from the definition."""
    seen = torch.full((TOKENS, TOKENS), -math.inf, dtype=query.dtype)
    for own, before in pieces:
        for i in range(own.length):
            keys = [place for span in before for place in range(span.start, sum(span))]
            keys += range(own.start, own.start + i + 1)
            seen[own.start + i, keys[-window:] if window else keys] = 0
    groups = query.shape[0] // key.shape[0]
    key, value = key.repeat_interleave(groups, 0), value.repeat_interleave(groups, 0)
    return (0.3 * query @ key.transpose(1, 2) + seen).softmax(-1) @ value


def tensors(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Queries of four heads, keys and values of two; values are wider."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((4, TOKENS, 6), (2, TOKENS, 6), (2, TOKENS, 7))
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


def gradients_padded_and_packed(policy: Policy, batch: Batch) -> list[list[Tensor]]:
    """Gradients of the same loss by padded rows, by packed ones, and by packed ones whose layers are computed again."""
    found: list[list[Tensor]] = []
    for packed, again in ((False, False), (True, False), (True, True)):
        policy.packed = packed
        if again:
            policy.recompute_activations(["policy"])
        loss = policy.logprobs(batch).logp_PKT.square().sum()
        parameters = [*policy.parameters(["policy"]).values()]
        found.append([g for g in torch.autograd.grad(loss, parameters) if g.any()])
    return found
