"""Attention over packed rows on a GPU: FlashAttention's kernels for sequences of uneven lengths, a piece each.

Dao 2023, arXiv 2307.08691. The keys of a piece are those of the spans before it and then its own, so that the causal
mask ends at the last query and the last key. What several branches see is there once for each of them, but as keys
alone: everything else in the model has each token once. In bfloat16 and float16.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from typing_extensions import override

from align.model.devices import autocast_dtype, moved
from align.model.packed_attention import Piece, Span

__all__ = ["Sequences", "attend", "sequences"]

_TOLERANCE = 0.05  # of a bfloat16 gradient; a wrong one differs by its own size
_TRIAL = (Piece(Span(0, 100)), Piece(Span(100, 60), (Span(0, 100),)), Piece(Span(160, 96), (Span(0, 100),)))


class Sequences(NamedTuple):
    """The pieces of a row as FlashAttention takes them."""

    query_starts: Tensor
    """Where the queries of each piece begin, and the end of the last; int32."""
    key_starts: Tensor
    key_index: Tensor | None
    """Place in the row of each key; None: the row itself, because no piece sees another."""
    seen: tuple[Tensor, Tensor] | None
    """The keys in the order of their places in the row, and where in it each place begins."""
    longest: tuple[int, int]
    """Queries, and keys, of one piece."""
    window: int
    """Keys before its own that a query sees; −1: all."""


def sequences(pieces: Sequence[Piece], window: int | None, device: torch.device) -> Sequences:
    """Return what the kernels need to know of a row; with a ``window`` a token sees only so many of the last ones."""
    queries = [piece.own.length for piece in pieces]
    keys = [piece.seen_before + piece.own.length for piece in pieces]
    starts = torch.tensor([[0, *queries], [0, *keys]], dtype=torch.int32).cumsum(1, dtype=torch.int32)
    query_starts, key_starts = moved(starts, device).unbind()
    index: Tensor | None = None
    seen: tuple[Tensor, Tensor] | None = None
    if keys != queries:
        spans = moved(torch.tensor([span for own, before in pieces for span in (*before, own)]), device)
        start, length = spans.unbind(1)
        shift = start - (length.cumsum(0) - length)
        total = sum(keys)
        index = torch.arange(total, device=device) + shift.repeat_interleave(length, output_size=total)
        places, order = index.sort(stable=True)
        seen = order, torch.searchsorted(places, torch.arange(sum(queries), device=device))
    left = -1 if window is None else window - 1
    return Sequences(query_starts, key_starts, index, seen, (max(queries), max(keys)), left)


def attend(query: Tensor, key: Tensor, value: Tensor, scaling: float, of: Sequences) -> Tensor:
    """Return ``softmax(scaling · q kᵀ) v`` over what each token sees; (1, heads, tokens, D) of each, heads second last.

    Keys and values may have fewer heads, each shared by as many queries' heads that follow one another.

    Raises:
        RuntimeError: The kernels cannot compute this, or compute it wrong.
    """
    computed = autocast_dtype(query.device) or value.dtype
    if type(query) is torch.Tensor:  # and has content, of which the memory of a step is not counted
        _require_right(query.shape[1], key.shape[1], query.shape[3], computed, query.device)
    by_token = (x.to(computed)[0].transpose(0, 1) for x in (query, key, value))
    out: Any = _Attention.apply(*by_token, scaling, of)
    return out[None]


class _Attention(torch.autograd.Function):
    """Of queries (N, heads, D), keys and values (N, heads/groups, D)."""

    @staticmethod
    @override
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float, of: Sequences
    ) -> Tensor:
        out, *rest, _ = torch.ops.aten._flash_attention_forward(
            query, _keys(key, of), _keys(value, of), *_shape(of), 0.0, of.window < 0, False, **_settings(scaling, of)
        )
        ctx.save_for_backward(query, key, value, out, *rest)
        ctx.scaling, ctx.of = scaling, of
        return out

    @staticmethod
    @override
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        query, key, value, out, log_sums, *random = ctx.saved_tensors
        of = ctx.of
        of_query, of_key, of_value = torch.ops.aten._flash_attention_backward(
            gradient.contiguous(),
            query,
            _keys(key, of),
            _keys(value, of),
            out,
            log_sums,
            *_shape(of),
            0.0,
            of.window < 0,
            *random,
            **_settings(ctx.scaling, of),
        )
        return of_query, _add_keys(key, of_key, of), _add_keys(value, of_value, of), None, None


def _shape(of: Sequences) -> tuple[Tensor, Tensor, int, int]:
    return of.query_starts, of.key_starts, *of.longest


def _settings(scaling: float, of: Sequences) -> dict[str, Any]:
    return {"scale": scaling, "window_size_left": of.window, "window_size_right": 0}


def _keys(x: Tensor, of: Sequences) -> Tensor:
    return x if of.key_index is None else x.index_select(0, of.key_index)


def _add_keys(x: Tensor, gradient: Tensor, of: Sequences) -> Tensor:
    """Add the gradients of what :func:`_keys` took to where it took them from, in one pass and always in one order."""
    if of.seen is None:
        return gradient
    order, begins = of.seen
    return torch.nn.functional.embedding_bag(order, gradient.flatten(1), begins, mode="sum").view_as(x)


@cache
def _require_right(heads: int, key_heads: int, width: int, dtype: torch.dtype, device: torch.device) -> None:
    """Compare output and gradients with those of attention with a mask, once for each kind of head."""
    of = sequences(_TRIAL, None, device)
    size = sum(piece.own.length for piece in _TRIAL)
    seen = torch.ones(size, size, dtype=torch.bool, device=device).tril()
    seen[160:, 100:160] = False
    generator = torch.Generator(device).manual_seed(0)
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        query, key, value = (
            torch.randn(1, n, size, width, generator=generator, device=device).to(dtype).requires_grad_()
            for n in (heads, key_heads, key_heads)
        )
        by_token = (x[0].transpose(0, 1) for x in (query, key, value))
        found: Any = _Attention.apply(*by_token, width**-0.5, of)
        keys, values = (x.repeat_interleave(heads // key_heads, 1) for x in (key, value))
        dense = torch.nn.functional.scaled_dot_product_attention(query, keys, values, seen)[0].transpose(0, 1)
        weights = torch.randn(found.shape, generator=generator, device=device).to(dtype)
        both = [[out, *torch.autograd.grad((out * weights).sum(), (query, key, value))] for out in (found, dense)]
    for ours, theirs in zip(*both, strict=True):
        difference = ((ours - theirs).float().norm() / theirs.float().norm()).item()
        if not difference <= _TOLERANCE:
            raise RuntimeError(f"FlashAttention differs from attention with a mask by {difference:.2g}")
