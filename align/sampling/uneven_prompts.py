"""Decoding on a CPU after prompts of uneven length, without computing or reading the padding before the short ones.

The prompts are computed packed, one after the other in a single row (:mod:`align.model.packing`), and their keys and
values are put into a batch that is padded on the left. In a step rows that follow one another are a block whose keys
begin where those of its longest prompt do: with the longest prompts first there is little padding left in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from align.model.packed_attention import Piece, Span
from align.model.packing import PACKED, Carried, Packing

__all__ = ["Block", "RowBlocks", "blocks", "prefill_packed", "takes_packed_prompts"]

_CALL = 1 << 18  # keys and values of all heads that are read in the time that another call takes


def takes_packed_prompts(model: Any) -> bool:
    """Return whether the model computes packed rows, on a CPU: on a GPU another kernel costs more than the padding."""
    return model.device.type == "cpu" and model.config.get_text_config()._attn_implementation == PACKED


@torch.no_grad()
def prefill_packed(model: Any, cache: Any, prompts: Sequence[Sequence[int]], n: int) -> tuple[Tensor, Tensor]:
    """Compute the prompts into an empty cache, each for ``n`` rows that follow one another.

    Args:
        model: Of :func:`takes_packed_prompts`, without layers of a window.
        cache: Of :func:`align.sampling.decode_loop.make_cache`.
        prompts: Token ids, R/n of them.
        n: Rows of each.

    Returns:
        Logits (R, V) after the last token of each row's prompt, and a mask (R, L) of the padded rows.
    """
    ends = list(accumulate(map(len, prompts)))
    spans = [Span(start, end - start) for start, end in pairwise([0, *ends])]
    last = torch.tensor(ends) - 1
    out: Any = model(
        input_ids=torch.tensor([[token for prompt in prompts for token in prompt]]),
        attention_mask=Packing([Piece(span) for span in spans]).as_mask(),
        position_ids=torch.cat([torch.arange(span.length) for span in spans])[None],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=last,
    )
    longest = max(map(len, prompts))
    back = longest - torch.arange(longest)  # from the end of a prompt
    mask = back <= torch.tensor([span.length for span in spans])[:, None]
    places = torch.where(mask, torch.tensor(ends)[:, None] - back, 0).repeat_interleave(n, 0)
    for layer in cache.layers:
        layer.unpack(places)
    return out.logits[0].float().repeat_interleave(n, 0), mask.long().repeat_interleave(n, 0)


class Block(NamedTuple):
    """Rows that follow one another."""

    start: int
    end: int
    first: int
    """Their keys begin here, or later."""
    even: bool
    """All of them begin here."""


def blocks(firsts: Sequence[int], width: int) -> list[Block]:
    """Cut rows into blocks, so that reading padding costs no more than another call would.

    Args:
        firsts: Where the keys of each row begin; about ascending.
        width: Of keys and values of all heads together.
    """
    least = list(accumulate(reversed(firsts), min))[::-1]  # of a row and all after it
    found: list[Block] = []
    start, wasted = 0, 0
    for row, first in enumerate(least):
        wasted += (first - least[start]) * width
        if wasted > _CALL:
            found.append(_block(firsts, start, row))
            start, wasted = row, 0
    return [*found, _block(firsts, start, len(firsts))]


def _block(firsts: Sequence[int], start: int, end: int) -> Block:
    own = firsts[start:end]
    return Block(start, end, min(own), min(own) == max(own))


class RowBlocks(Carried):
    """The attention of one step, block by block."""

    def __init__(self, parts: Sequence[Block], visible: Tensor) -> None:
        """``visible`` (R, 1, 1, L) is True where a row sees a key."""
        self._parts, self._visible = parts, visible

    @override
    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        shared = query.shape[1] != key.shape[1]
        out = [
            F.scaled_dot_product_attention(
                query[start:end],
                key[start:end, :, first:],
                value[start:end, :, first:],
                None if even else self._visible[start:end, :, :, first:],
                scale=scaling,
                enable_gqa=shared,
            )
            for start, end, first, even in self._parts
        ]
        return torch.cat(out).transpose(1, 2)
