"""A short decode loop: the K responses of a prompt share its prefill, and finished rows leave the batch.

`transformers.generate` computes the prompt once per response and carries every row to the end of the longest; with
short responses of uneven length that is most of the work. Models whose cache is not plain attention (recurrent,
hybrid) are left to `generate`, see :class:`align.sampling.sampler.Sampler`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer
from typing_extensions import override

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_GROWTH = 32  # tokens by which a full buffer grows


class _GrowingLayer(DynamicLayer):
    """Keys and values in a buffer with room to grow: a step writes one place where the parent copies everything."""

    _key_buffer: Tensor
    _value_buffer: Tensor

    @override
    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        length = self.get_seq_length()
        end = length + key_states.shape[-2]
        if length == 0:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        if length == 0 or end > self._key_buffer.shape[-2]:
            self._key_buffer = self._enlarged(self.keys, key_states, end + _GROWTH)
            self._value_buffer = self._enlarged(self.values, value_states, end + _GROWTH)
        rows = len(key_states)
        self._key_buffer[:rows, :, length:end] = key_states
        self._value_buffer[:rows, :, length:end] = value_states
        self.keys, self.values = self._key_buffer[:rows, :, :end], self._value_buffer[:rows, :, :end]
        return self.keys, self.values

    @staticmethod
    def _enlarged(old: Tensor, new: Tensor, capacity: int) -> Tensor:
        buffer = new.new_empty((*new.shape[:-2], capacity, new.shape[-1]))
        if old.numel():
            buffer[:, :, : old.shape[-2]] = old
        return buffer

    @override
    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        assert self.keys is not None
        assert self.values is not None
        self._key_buffer, self._value_buffer = self.keys, self.values

    @override
    def batch_select_indices(self, indices: Tensor) -> None:
        assert self.keys is not None
        assert self.values is not None
        moved = (indices != torch.arange(len(indices), device=indices.device)).nonzero()[:, 0]
        self.keys[moved], self.values[moved] = self.keys[indices[moved]], self.values[indices[moved]]
        self.keys, self.values = self.keys[: len(indices)], self.values[: len(indices)]


class Draw(Protocol):
    """Chooses the next tokens."""

    def __call__(self, logits: Tensor, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Logits (R, V) of these responses → the tokens chosen (R,), and which responses end with them (R,)."""
        ...


def make_cache(model: PreTrainedModel) -> DynamicCache | None:
    """An empty cache for this decode loop, or None for a model that needs another kind."""
    cache = DynamicCache(config=model.config)
    if not cache.layers or not all(isinstance(layer, DynamicLayer) for layer in cache.layers):
        return None
    cache.layers = [_GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


@torch.no_grad()
def decode(
    model: PreTrainedModel,
    cache: DynamicCache,
    prompts: Sequence[Sequence[int]],
    *,
    n: int,
    draw: Draw,
    max_new_tokens: int,
    pad_id: int,
) -> None:
    """Let ``draw`` choose the tokens of ``n`` responses per prompt, until it ends them or they are too long.

    Args:
        model: In evaluation mode.
        cache: Of :func:`make_cache`, used up here.
        prompts: Token ids; padded on the left.
        n: Responses per prompt.
        draw: Chooses, keeps and ends; response k of prompt p is row ``p * n + k``.
        max_new_tokens: Longest response.
        pad_id: Fills up the prompts; masked.
    """
    device = model.device
    ids, mask = pad_left(prompts, pad_id, device)
    accepted = inspect.signature(model.forward).parameters

    def forward(ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Logits (R, V) after the last token."""
        extra: dict[str, Any] = {"position_ids": positions, "logits_to_keep": 1}
        known = {name: value for name, value in extra.items() if name in accepted}
        out: Any = model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **known)
        return out.logits[:, -1].float()

    logits = forward(ids, mask, (mask.cumsum(1) - 1).clamp(min=0))
    if n > 1:
        cache.batch_repeat_interleave(n)
        logits, mask = logits.repeat_interleave(n, 0), mask.repeat_interleave(n, 0)
    rows = torch.arange(len(prompts) * n, device=device)  # which response each row of the batch is
    for step in range(max_new_tokens):
        chosen, ended = draw(logits, rows.tolist())
        going = (~ended).nonzero()[:, 0]
        if not len(going) or step == max_new_tokens - 1:
            break
        if len(going) < len(rows):
            going = _fill_gaps(going)
            cache.batch_select_indices(going)
            rows, mask, chosen = rows[going], mask[going], chosen[going]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        logits = forward(chosen[:, None], mask, mask.sum(1, keepdim=True) - 1)


def _fill_gaps(going: Tensor) -> Tensor:
    """The rows that go on, in an order in which most stay where they are: the last ones move into the gaps."""
    stay = going[going < len(going)]
    order = torch.arange(len(going), device=going.device)
    gaps = torch.ones_like(order, dtype=torch.bool).index_fill(0, stay, False)
    order[gaps] = going[len(stay) :]
    return order


def pad_left(prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and mask (R, L) of prompts that end together, as generation needs them."""
    width = max(map(len, prompts))
    ids = [[pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
