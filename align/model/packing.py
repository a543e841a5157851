"""Packed rows in a model of transformers: an attention that knows which tokens of the row see which.

:mod:`align.model.packed_attention` computes it on a CPU, :mod:`align.model.flash_attention` on a GPU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from align.model import flash_attention, packed_attention
from align.model.flash_attention import Sequences
from align.model.packed_attention import Piece, Product

__all__ = ["PACKED", "Carried", "Packing", "can_pack", "use_packed_attention"]

PACKED = "packed"
"""Name of this attention among those of transformers."""
_POSITIONS = {"position_ids", "cache_position"}  # in the rotated queries and keys already
_CARRIED = "_align_packing"


class Carried(ABC):
    """An attention that takes the place of PyTorch's in one pass, brought to each layer by the mask."""

    def as_mask(self) -> Tensor:
        """Return a tensor that brings this to the attention: one of four dimensions passes transformers untouched."""
        mask = torch.zeros(1, 1, 1, 1)
        setattr(mask, _CARRIED, self)
        return mask

    @abstractmethod
    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Return the output of (R, heads, tokens, width) of each; (R, tokens, heads, width)."""


class Packing(Carried):
    """The pieces of a row; with a ``window`` a token sees only so many of the last ones, itself included."""

    def __init__(self, pieces: Sequence[Piece], window: int | None = None) -> None:
        self._pieces, self._window = pieces, window
        self._products: dict[int, list[Product]] = {}
        self._sequences: Sequences | None = None

    @override
    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Return the output of (1, heads, tokens, width) of each; (1, tokens, heads, width).

        What is the same in each layer is made once.
        """
        if query.device.type == "cuda":
            if self._sequences is None:
                self._sequences = flash_attention.sequences(self._pieces, self._window, query.device)
            return flash_attention.attend(query, key, value, scaling, self._sequences)
        width = query.shape[1] * query.shape[3]
        if width not in self._products:
            self._products[width] = packed_attention.plan(self._pieces, self._window, width)
        return packed_attention.attend(query, key, value, scaling, self._products[width])


def can_pack(model: Any, device: torch.device) -> bool:
    """Return whether a model computes with PyTorch's attention, takes another in its place, and there is one for it."""
    takes_another = bool(getattr(model, "_supports_attention_backend", False))
    uses_sdpa = model.config.get_text_config()._attn_implementation == "sdpa"
    there_is = device.type == "cpu" or (device.type == "cuda" and model.dtype in (torch.bfloat16, torch.float16))
    return takes_another and uses_sdpa and there_is


def use_packed_attention(config: Any, on: bool = True) -> None:
    """Let a model that :func:`can_pack` compute with this attention, or with PyTorch's again.

    They differ only where the mask is that of a :class:`Carried`; but some architectures ask for PyTorch's by name.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(PACKED, _attend)
    AttentionMaskInterface.register(PACKED, sdpa_mask)
    config.get_text_config()._attn_implementation = PACKED if on else "sdpa"


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **settings: Any
) -> tuple[Tensor, None]:
    """An attention of transformers: (R, heads, tokens, width) of each, the output (R, tokens, heads, width)."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    # A tensor, or one of these, makes it another attention: sinks, the chosen keys of a sparse one.
    asked = {name for name, value in settings.items() if isinstance(value, Tensor)} - _POSITIONS
    asked |= {name for name in ("softcap", "cache", "dropout") if settings.get(name)}
    if asked:
        raise ValueError(f"no packed attention with {', '.join(sorted(asked))}")
    carried: Carried | None = getattr(attention_mask, _CARRIED, None)
    if carried is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
    scaling = settings.get("scaling")
    return carried.attend(query, key, value, query.shape[-1] ** -0.5 if scaling is None else scaling), None
