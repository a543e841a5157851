"""Attention over packed rows on a GPU: FlexAttention, which passes over blocks of keys that no query of a block sees.

Dong et al. 2024, arXiv 2412.05496. PyTorch builds a kernel for each kind of head and type, which takes seconds; not for
each length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from align.model.devices import autocast_dtype, moved
from align.model.packed_attention import Piece, Span

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

__all__ = ["BLOCK", "attend", "block_mask"]

BLOCK = 128
"""Queries, or keys, of a block; rows have a multiple of it."""
_KERNELS = 64  # of one process: kinds of heads, types, windows, with and without gradients
_TOLERANCE = 0.05  # of a bfloat16 gradient; a wrong one differs by its own size
_TRIAL = (Piece(Span(0, 100)), Piece(Span(100, 60), (Span(0, 100),)), Piece(Span(160, 96)))


def block_mask(pieces: Sequence[Piece], window: int | None, device: torch.device) -> BlockMask:
    """Return which keys each query sees, by blocks and one by one; with a ``window`` only so many of the last ones."""
    from torch.nn.attention.flex_attention import create_block_mask

    of_pieces: list[tuple[int, int, int, int]] = []
    for piece in pieces:
        start, length = piece.before[0] if piece.before else (0, 0)
        assert len(piece.before) <= 1
        of_pieces.append((piece.own.start, start, start + length, piece.seen_before - piece.own.start))
    lengths = torch.tensor([piece.own.length for piece in pieces])
    table = torch.tensor(of_pieces, dtype=torch.int32).repeat_interleave(lengths, 0).T
    own, first, end, shift = moved(table, device).unbind()

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        before = (key >= first[query]) & (key < end[query])
        seen = (key <= query) & ((key >= own[query]) | before)
        if window is not None:  # of positions: branches of a tree begin at the same one
            seen = seen & (query + shift[query] - key - shift[key] < window)
        return seen

    tokens = int(lengths.sum())
    return create_block_mask(sees, None, None, tokens, tokens, device=str(device), BLOCK_SIZE=BLOCK)


def attend(query: Tensor, key: Tensor, value: Tensor, scaling: float, blocks: BlockMask) -> Tensor:
    """Return ``softmax(scaling · q kᵀ) v`` over what each token sees; (1, heads, tokens, D) of each, heads second last.

    Keys and values may have fewer heads, each shared by as many queries' heads that follow one another.

    Raises:
        RuntimeError: PyTorch cannot build the kernels, or their gradients are wrong.
    """
    computed = autocast_dtype(query.device) or value.dtype
    query, key, value = (x.to(computed) for x in (query, key, value))
    if query.device.type == "cuda":
        _require_gradients(query.shape[1], key.shape[1], query.shape[3], value.shape[3], computed, query.device)
    return _flex(query, key, value, scaling, blocks).transpose(1, 2)


def _flex(query: Tensor, key: Tensor, value: Tensor, scaling: float, blocks: BlockMask) -> Tensor:
    for x in (query, key, value):
        torch._dynamo.maybe_mark_dynamic(x, 2)  # pyright: ignore[reportPrivateUsage]
    shared = query.shape[1] != key.shape[1]
    return _compiled()(query, key, value, block_mask=blocks, scale=scaling, enable_gqa=shared)


@cache
def _compiled() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    limit = torch._dynamo.config.recompile_limit  # pyright: ignore[reportPrivateUsage]
    # Beyond it PyTorch would go on without kernels, with all scores of a row at once.
    torch._dynamo.config.recompile_limit = max(limit, _KERNELS)  # pyright: ignore[reportPrivateUsage]
    return torch.compile(flex_attention)


@cache
def _require_gradients(
    heads: int, key_heads: int, width: int, value_width: int, dtype: torch.dtype, device: torch.device
) -> None:
    """Compare outputs and gradients with those of dense attention, once for each kind of head."""
    blocks = block_mask(_TRIAL, None, device)
    place = torch.arange(blocks.shape[-1], device=device)
    seen: Any = blocks.mask_mod(place, place, place[:, None], place[None, :])
    generator = torch.Generator(device).manual_seed(0)
    shapes = ((heads, width), (key_heads, width), (key_heads, value_width))
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        q, k, v = (
            torch.randn(1, n, len(place), w, generator=generator, device=device, dtype=dtype, requires_grad=True)
            for n, w in shapes
        )
        found = _flex(q, k, v, width**-0.5, blocks)
        expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, seen, enable_gqa=heads != key_heads)
        weights = torch.randn(found.shape, generator=generator, device=device, dtype=dtype)
        both = [[out, *torch.autograd.grad((out * weights).sum(), (q, k, v))] for out in (found, expected)]
    for ours, theirs in zip(*both, strict=True):
        difference = ((ours - theirs).float().norm() / theirs.float().norm()).item()
        if not difference <= _TOLERANCE:
            raise RuntimeError(f"FlexAttention differs from dense attention by {difference:.2g}")
