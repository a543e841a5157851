"""A short decode loop: the K responses to a prompt share its prefill, and finished rows leave the batch.

`transformers.generate` computes the prompt once per response and continues every row to the end of the longest; with
short responses of uneven length that is most of the work. Models with another cache than plain attention (recurrent,
hybrid) use `generate`, see :class:`align.sampling.sampler.Sampler`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer
from typing_extensions import override

from align.model.devices import moved
from align.model.packing import PACKED
from align.model.tree_layout import attention_kinds, pad_left
from align.sampling.uneven_prompts import Block, RowBlocks, blocks, prefill_packed, takes_packed_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_GROWTH = 32  # tokens by which a full buffer grows


class _GrowingLayer(DynamicLayer):
    """Keys and values in a buffer with spare room: a step writes one position, where the parent class copies all."""

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

    def unpack(self, places: Tensor) -> None:
        """Take rows of these places (R, L) of the only row."""
        assert self.keys is not None
        assert self.values is not None
        keys, values = (x[0][:, places].transpose(0, 1).contiguous() for x in (self.keys, self.values))
        self.keys, self.values = self._key_buffer, self._value_buffer = keys, values

    def keep(self, rows: int, places: Tensor, sources: Tensor) -> None:
        """Keep the first rows, at these places with what is in the sources."""
        assert self.keys is not None
        assert self.values is not None
        self.keys[places], self.values[places] = self.keys[sources], self.values[sources]
        self.keys, self.values = self.keys[:rows], self.values[:rows]


class ChooseTokens(Protocol):
    """Chooses the next tokens: the one place where the processor waits for them."""

    def __call__(self, logits: Tensor, rows: Sequence[int]) -> tuple[Tensor, Sequence[bool]]:
        """Logits (R, V) of these responses → their next tokens (R,), and True where a response ends."""
        ...


def make_cache(model: PreTrainedModel) -> DynamicCache | None:
    """Return an empty cache for this decode loop, or None for a model that needs another kind."""
    if "past_key_values" not in inspect.signature(model.forward).parameters:  # GPT-1 has no cache at all
        return None
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
    choose: ChooseTokens,
    max_new_tokens: int,
    pad_id: int,
    takes_masks: bool = False,
) -> Iterator[None]:
    """Generate ``n`` responses per prompt, until ``choose`` ends them or they have ``max_new_tokens``.

    Yields after each step, in which every unfinished response got a token.

    Args:
        model: A model in evaluation mode.
        cache: A new cache of :func:`make_cache`.
        prompts: Token ids of each prompt.
        n: Responses per prompt.
        choose: Chooses and stores the tokens; response k to prompt p is row ``p * n + k``.
        max_new_tokens: Longest response.
        pad_id: Padding token, masked.
        takes_masks: The model takes masks of four dimensions, as a tree has them (probed).
    """
    order = sorted(range(len(prompts)), key=lambda p: -len(prompts[p]))  # the longest first, as blocks of rows need it
    ordered = [prompts[p] for p in order]
    firsts = [len(ordered[0]) - len(prompt) for prompt in prompts]  # where the keys of each prompt begin
    padded = any(firsts)
    kinds = _kinds(model) if takes_masks else ()
    forward = _Forward(model, cache)
    packed = padded and _packs(model, cache, kinds, forward.accepted)
    logits, mask = prefill_packed(model, cache, ordered, n) if packed else _prefill(forward, ordered, n, pad_id)
    parts: Sequence[Block] = ()
    rows = [p * n + k for p in order for k in range(n)]  # response of each row of the batch
    for step in range(max_new_tokens):
        chosen, ended = choose(logits, rows)
        yield
        going = [row for row, over in enumerate(ended) if not over]
        if not going or step == max_new_tokens - 1:
            break
        if len(going) < len(rows):
            going = _fill_gaps(going)
            index = moved(torch.tensor(going), model.device)
            _keep(cache, going, index)
            rows, mask, chosen, parts = [rows[row] for row in going], mask[index], chosen[index], ()
        if packed and not parts:
            parts = blocks([firsts[row // n] for row in rows], _width(cache))
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        hiding = _step_mask(cache, mask, kinds, parts) if padded else None
        logits = forward(chosen[:, None], hiding, mask.sum(1, keepdim=True) - 1)


class _Forward:
    """A pass of the model that goes on where its cache ends."""

    def __init__(self, model: PreTrainedModel, cache: DynamicCache) -> None:
        self.model, self.cache = model, cache
        self.accepted = inspect.signature(model.forward).parameters

    def __call__(self, ids: Tensor, hiding: Any, positions: Tensor) -> Tensor:
        """Return the logits (R, V) after the last of the tokens (R, L), of which ``hiding`` is the mask."""
        extra: dict[str, Any] = {"position_ids": positions, "logits_to_keep": 1}
        known = {name: value for name, value in extra.items() if name in self.accepted}
        out: Any = self.model(input_ids=ids, attention_mask=hiding, past_key_values=self.cache, use_cache=True, **known)
        return out.logits[:, -1].float()


def _prefill(forward: _Forward, prompts: Sequence[Sequence[int]], n: int, pad_id: int) -> tuple[Tensor, Tensor]:
    """Compute padded prompts; returns what :func:`align.sampling.uneven_prompts.prefill_packed` does."""
    ids, mask = pad_left(prompts, pad_id, forward.model.device)
    even = len(set(map(len, prompts))) == 1
    logits = forward(ids, None if even else mask, (mask.cumsum(1) - 1).clamp(min=0))
    if n > 1:
        forward.cache.batch_repeat_interleave(n)
    return logits.repeat_interleave(n, 0), mask.repeat_interleave(n, 0)


def _fill_gaps(going: Sequence[int]) -> list[int]:
    """Return the unfinished rows, the last ones moved into the gaps, so that most stay in place."""
    stay = {row for row in going if row < len(going)}
    last = iter(going[len(stay) :])
    return [place if place in stay else next(last) for place in range(len(going))]


def _keep(cache: DynamicCache, going: Sequence[int], index: Tensor) -> None:
    """Keep these rows, in this order; ``index``: the same where the cache is."""
    places = [place for place, row in enumerate(going) if place != row]
    places, sources = (
        moved(torch.tensor(x, dtype=torch.long), index.device) for x in (places, [going[place] for place in places])
    )
    layers: list[Any] = cache.layers
    for layer in layers:
        if isinstance(layer, _GrowingLayer):
            layer.keep(len(going), places, sources)
        else:
            layer.batch_select_indices(index)


def _kinds(model: PreTrainedModel) -> Sequence[str]:
    """Return the kinds of layers whose attention is PyTorch's, which takes a boolean mask; else none."""
    config: Any = model.config.get_text_config()
    return list(attention_kinds(config)) if config._attn_implementation in ("sdpa", PACKED) else ()


def _packs(model: PreTrainedModel, cache: DynamicCache, kinds: Sequence[str], accepted: Iterable[str]) -> bool:
    """Return whether prompts can be computed in one row, and steps in blocks of rows."""
    whole = len(kinds) == 1 and all(isinstance(layer, _GrowingLayer) for layer in cache.layers)
    return whole and {"position_ids", "logits_to_keep"} <= set(accepted) and takes_packed_prompts(model)


def _width(cache: DynamicCache) -> int:
    """Width of the keys and values of a token in a layer."""
    layer: Any = cache.layers[0]
    keys: Tensor = layer.keys
    return 2 * keys.shape[1] * keys.shape[3]


def _step_mask(cache: DynamicCache, mask: Tensor, kinds: Sequence[str], parts: Sequence[Block]) -> Any:
    """Return which keys of the cache the next token of each row sees, as the model takes it.

    Where it takes masks of four dimensions there is one for each kind of layers, or the only one: of one of two
    dimensions transformers asks whether it hides anything, and waits for the answer. Layers with a window keep no more
    keys than it has.
    """
    masks: dict[str, Tensor] = {}
    layers: list[Any] = cache.layers
    for kind in kinds:
        layer = next(layer for layer in layers if layer.is_sliding == (kind == "sliding_attention"))
        length, first = layer.get_mask_sizes(1)
        masks[kind] = mask[:, None, None, first : first + length].bool()
    if parts:
        return RowBlocks(parts, *masks.values()).as_mask()
    return masks if len(masks) > 1 else next(iter(masks.values()), mask)
