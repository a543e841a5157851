"""Attention over packed rows: the tokens of a micro-batch one after the other in a single row, none of them padding.

A row falls into pieces, and a query sees its own piece up to itself and the spans before it: for a branch of a tree
these are its prompt, for the second half of a long sequence the first. Pieces of similar size share a matrix product,
which pads them; their scores exist for one product at a time, and the backward pass computes them again, as that of
FlashAttention does (Dao et al. 2022, arXiv 2205.14135). All of it is in float32, the output in the type of the values.

This is for the CPU, where it is faster than PyTorch's kernel with a mask, which computes every masked score as well.
Rows of one length that need no mask it would slow down by some percent; those stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from typing_extensions import override

__all__ = ["Piece", "Product", "Span", "attend", "plan"]

_BLOCK = 256  # queries of a piece that are computed at once
_CALL = 1 << 19  # multiplications that take as long as the launching of a product and what goes with it


class Span(NamedTuple):
    """Tokens of the row that follow one another."""

    start: int
    length: int


class Piece(NamedTuple):
    """Tokens of which each sees those before it in the piece, and all of other spans."""

    own: Span
    before: tuple[Span, ...] = ()

    @property
    def seen_before(self) -> int:
        """Number of tokens in the spans before the piece."""
        return sum(length for _, length in self.before)


def attend(query: Tensor, key: Tensor, value: Tensor, scaling: float, products: Sequence[Product]) -> Tensor:
    """Return ``softmax(scaling · q kᵀ) v`` over what each token sees; (1, heads, tokens, D) of each, heads second last.

    Keys and values may have fewer heads, each shared by as many queries' heads that follow one another.
    """
    # A model computes (tokens, heads, width): a token at a time is ten times faster to copy than a head at a time.
    by_token = (x[0].transpose(0, 1) for x in (query, key, value))
    out: Any = _Attention.apply(*by_token, scaling, products)
    return out[None]


@dataclass(frozen=True)
class Product:
    """Pieces whose scores are one product: R rows of ``q`` queries, with ``p + q`` keys each.

    The keys before a piece end at column ``p``, behind padding; its own begin there. A row alone is not padded.
    """

    pieces: Sequence[Piece]
    q: int
    p: int
    own_mask: Tensor
    """Added to the scores of the own keys; (q, q)."""
    before_mask: Tensor | None
    """Added to those of the keys before; (1 or R, 1, 1 or q, p)."""
    query_index: Tensor = field(default_factory=lambda: torch.empty(0))
    """Place of each query of several rows in the packed row, any where there is none; (R·q,)."""
    key_index: Tensor = field(default_factory=lambda: torch.empty(0))
    """The same of the keys; (R·(p+q),)."""
    padding: Tensor | None = None
    """True where there is no query; (R·q,)."""
    real: Tensor | None = None
    """Where there is one, if not everywhere."""

    @property
    def is_one(self) -> bool:
        """A single piece, whose tokens need no index."""
        return len(self.pieces) == 1

    def queries(self, x: Tensor, groups: int) -> Tensor:
        """Take the queries of (tokens, heads, D), heads that share keys together; (heads/groups, R, groups·q, D)."""
        if self.is_one:
            start, length = self.pieces[0].own
            taken = x[start : start + length]
        else:
            taken = x.index_select(0, self.query_index)
        heads, width = x.shape[1] // groups, x.shape[2]
        taken = taken.view(-1, self.q, heads, groups, width).permute(2, 0, 3, 1, 4)
        return _for_product(taken.reshape(heads, -1, groups * self.q, width))

    def put_queries(self, out: Tensor, values: Tensor, groups: int) -> None:
        """Write what :meth:`queries` would take."""
        values = values.view(*values.shape[:2], groups, self.q, -1).permute(1, 3, 0, 2, 4)
        values = values.reshape(-1, *out.shape[1:]).to(out.dtype)
        if self.is_one:
            start, length = self.pieces[0].own
            out[start : start + length] = values
        elif self.real is None:
            out.index_copy_(0, self.query_index, values)
        else:
            out.index_copy_(0, self.query_index[self.real], values.index_select(0, self.real))

    def keys(self, x: Tensor) -> Tensor:
        """Take the keys of (tokens, heads, D); (heads, R, p + q, D)."""
        if self.is_one:
            parts = [x[start : start + length] for start, length in self._key_spans()]
            taken = parts[0] if len(parts) == 1 else torch.cat(parts)
        else:
            taken = x.index_select(0, self.key_index)
        return _for_product(taken.view(-1, self.p + self.q, *x.shape[1:]).permute(2, 0, 1, 3))

    def add_keys(self, out: Tensor, values: Tensor) -> None:
        """Add to where :meth:`keys` takes from."""
        values = values.permute(1, 2, 0, 3).reshape(-1, *out.shape[1:])
        if not self.is_one:
            out.index_add_(0, self.key_index, values)
            return
        row = 0
        for start, length in self._key_spans():
            out[start : start + length] += values[row : row + length]
            row += length

    def _key_spans(self) -> list[Span]:
        own, before = self.pieces[0]
        return _followed_by(before, own)

    def attention(self, query: Tensor, key: Tensor, groups: int) -> Tensor:
        """``softmax(queries · keys + mask)``; (heads, R, groups·q, p + q)."""
        scores = query @ key.transpose(-1, -2)
        by_query = scores.view(*scores.shape[:2], groups, self.q, -1)
        by_query[..., self.p :] += self.own_mask
        if self.before_mask is not None:
            by_query[..., : self.p] += self.before_mask
        return scores.softmax(-1)


class _Attention(torch.autograd.Function):
    """Of queries (N, heads, D), keys and values (N, heads/groups, D)."""

    @staticmethod
    @override
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float, products: Sequence[Product]
    ) -> Tensor:
        groups = query.shape[1] // key.shape[1]
        out = value.new_empty(*query.shape[:2], value.shape[-1])
        with torch.autocast(query.device.type, enabled=False):
            for product in products:
                weights = product.attention(product.queries(query, groups) * scaling, product.keys(key), groups)
                product.put_queries(out, weights @ product.keys(value), groups)
        ctx.save_for_backward(query, key, value, out)
        ctx.scaling, ctx.products, ctx.groups = scaling, products, groups
        return out

    @staticmethod
    @override
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        query, key, value, out = ctx.saved_tensors
        groups = ctx.groups
        of_query = torch.empty_like(query)
        of_key, of_value = (
            torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32)) for x in (key, value)
        )
        with torch.autocast(query.device.type, enabled=False):
            for product in ctx.products:
                q, k, v = product.queries(query, groups) * ctx.scaling, product.keys(key), product.keys(value)
                g, o = product.queries(gradient, groups), product.queries(out, groups)
                if product.padding is not None:
                    padding = product.padding.view(1, -1, 1, product.q, 1)
                    g = g.view(*g.shape[:2], groups, product.q, -1).masked_fill(padding, 0).view(g.shape)
                weights = product.attention(q, k, groups)
                product.add_keys(of_value, weights.transpose(-1, -2) @ g)
                of_scores = g @ v.transpose(-1, -2)
                of_scores -= (g * o).sum(-1, keepdim=True)
                of_scores *= weights
                product.put_queries(of_query, (of_scores @ k) * ctx.scaling, groups)
                product.add_keys(of_key, of_scores.transpose(-1, -2) @ q)
        return of_query, of_key.to(key.dtype), of_value.to(value.dtype), None, None


def _for_product(x: Tensor) -> Tensor:
    """Batches of small matrices are multiplied faster where each lies in one piece of memory."""
    return x.to(torch.promote_types(x.dtype, torch.float32)).contiguous()


def plan(pieces: Sequence[Piece], window: int | None, width: int) -> list[Product]:
    """Return the products of a row for heads of this width together, the same in each layer.

    Long pieces are cut, and those put together whose padding costs less than a call. With a ``window`` a token sees
    only so many of the last ones, itself included.
    """
    call = _CALL // width  # in scores
    parts = [part for piece in pieces for part in _blocks(piece, window)]
    parts.sort(key=lambda part: (-part.own.length - part.seen_before, -part.own.length, part.own.start))
    products: Sequence[Product] = []
    group, q, p = list[Piece](), 0, 0
    for part in parts:
        length, before = part.own.length, part.seen_before
        wider, longer = max(q, length), max(p, before)
        area = (len(group) + 1) * wider * (wider + longer)
        if group and area - len(group) * q * (q + p) - length * (length + before) > call:
            products.append(_product(group, q, p, window))
            group, wider, longer = [], length, before
        group, q, p = [*group, part], wider, longer
    return [*products, _product(group, q, p, window)] if group else products


def _blocks(piece: Piece, window: int | None) -> list[Piece]:
    """Cut a piece into blocks of queries, each with what its first one sees before it."""
    (start, length), before = piece
    blocks: list[Piece] = []
    for first in range(0, length, _BLOCK):
        spans = _followed_by(before, Span(start, first)) if first else before
        own = Span(start + first, min(_BLOCK, length - first))
        blocks.append(Piece(own, tuple(spans if window is None else _last(spans, window - 1))))
    return blocks


def _followed_by(spans: Sequence[Span], last: Span) -> list[Span]:
    """Add a span, as one with that before it if it begins where that ends."""
    if spans and sum(spans[-1]) == last.start:
        return [*spans[:-1], Span(spans[-1].start, spans[-1].length + last.length)]
    return [*spans, last]


def _last(spans: Sequence[Span], count: int) -> list[Span]:
    """Return the last ``count`` tokens of the spans."""
    kept: list[Span] = []
    for start, length in reversed(spans):
        if count:
            taken = min(length, count)
            kept.insert(0, Span(start + length - taken, taken))
            count -= taken
    return kept


def _product(pieces: Sequence[Piece], q: int, p: int, window: int | None) -> Product:
    distance = torch.arange(q)[:, None] + p - torch.arange(p + q)[None, :]  # from a query back to a key
    hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
    hidden_before = hidden[None, None, :, :p] if window is not None and window < p + q else None
    if any(piece.seen_before < p for piece in pieces):
        count = torch.tensor([piece.seen_before for piece in pieces])
        padded = (torch.arange(p) < p - count[:, None])[:, None, None]
        hidden_before = padded if hidden_before is None else hidden_before | padded
    masks = (_added(hidden[:, p:]), None if hidden_before is None else _added(hidden_before))
    if len(pieces) == 1:
        return Product(pieces, q, p, *masks)
    query, key, real = list[int](), list[int](), list[int]()
    for row, (own, before) in enumerate(pieces):
        places = [place for span in before for place in range(span.start, sum(span))]
        queries = [*range(own.start, sum(own))] + [0] * (q - own.length)
        query += queries
        key += [0] * (p - len(places)) + places + queries
        real += range(row * q, row * q + own.length)
    index = (torch.tensor(query), torch.tensor(key))
    if len(real) == len(query):
        return Product(pieces, q, p, *masks, *index)
    padding = torch.ones(len(query), dtype=torch.bool).index_fill(0, torch.tensor(real), False)
    return Product(pieces, q, p, *masks, *index, padding, torch.tensor(real))


def _added(hidden: Tensor) -> Tensor:
    return torch.zeros(hidden.shape).masked_fill(hidden, -math.inf)
