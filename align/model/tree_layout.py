"""Tree and flat layouts of a batch as rows of a causal language model.

**Tree**: one row per prompt, the prompt computed once::

    [prompt without its last token | last prompt token, response 1 | last prompt token, response 2 | ...]

Each branch starts with a copy of the last prompt token, so that it predicts its own first token. Position ids
restart at ``len(prompt) - 1`` in each branch; a branch attends to the prompt and to itself.

**Flat**: one row per response, ``[prompt | response]``, padding on the right. A causal model never looks to the
right, so no mask is needed.

Both give the same numbers (the tests require ≤1e-5 in float32, gradients included, for several architectures);
:func:`align.model.probe.choose_layout` checks on the loaded model whether it can have the tree.

**Packed**: the rows of either layout one after the other in a single one, without padding, where the model can
(:mod:`align.model.packing`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from align.model.batch import Batch, Layout, padded
from align.model.devices import autocast_dtype, moved
from align.model.packed_attention import Piece, Span
from align.model.packing import PACKED, Packing

_LENGTH_STEP = 64
_LITTLE = 0.1  # of flat rows; without a mask PyTorch's attention is as much faster


@dataclass(frozen=True)
class Rows:
    """A batch laid out as model input.

    ``source_PKT`` and ``last_PK`` index the flattened ``(R * L)`` hidden states: the position that predicts a
    response token, and the position of the last response token itself. Both are 0 if there is none.
    """

    input_ids_RL: Tensor
    position_ids_RL: Tensor
    segment_RL: Tensor | None
    """Tree only: 0 prompt, k + 1 branch k, −1 padding. ``None``: plain causal rows, padding on the right."""
    source_PKT: Tensor
    last_PK: Tensor
    place_N: Tensor
    """Where the batch has a response token, as an index into ``mask_PKT`` flattened. An accelerator would be waited for
    to count them."""
    target_N: Tensor
    """Those tokens."""
    pieces: tuple[Piece, ...] | None = None
    """Packed only: which tokens of the one row see which."""
    packings: dict[int | None, Packing] = field(default_factory=dict[int | None, Packing])
    """Packed only: the same for each window of the model's layers, as it was needed."""

    @property
    def source_N(self) -> Tensor:
        """``source_PKT`` where there is a token."""
        return self.source_PKT.flatten()[self.place_N]

    def placed(self, values_N: Tensor) -> Tensor:
        """Return values of the response tokens as float32 (P, K, T), 0 where there is none."""
        zeros = torch.zeros(self.source_PKT.numel(), device=values_N.device)
        return zeros.index_copy(0, self.place_N, values_N.float()).view(self.source_PKT.shape)

    def each(self, change: Callable[[Tensor], Tensor]) -> Rows:
        """Return the rows with all their tensors changed."""
        tensors = {name: x for name, x in vars(self).items() if isinstance(x, Tensor)}
        return replace(self, packings={}, **{name: change(x) for name, x in tensors.items()})

    def to(self, device: torch.device) -> Rows:
        """Return the rows on ``device``."""
        return self.each(lambda x: moved(x, device))


def lay_out(
    batch: Batch,
    layout: Layout,
    *,
    pad_id: int,
    device: torch.device,
    longest: int | None = None,
    packed: bool = False,
) -> Rows:
    """Lay a batch out as rows on ``device``, once. With one response per prompt both layouts are the flat one.

    On an accelerator the rows are as long as a multiple of 64, but not longer than ``longest``, the positions that the
    model has: kernels are fast on such lengths, and some are built anew for each length that they meet.
    """
    how = (layout, pad_id, device, longest, packed)
    if how not in batch.laid_out:
        batch.laid_out[how] = _rows(batch, layout == "flat" or batch.K <= 1, pad_id, device, longest, packed)
    return batch.laid_out[how]


def _rows(batch: Batch, flat: bool, pad_id: int, device: torch.device, longest: int | None, packed: bool) -> Rows:
    if packed and not (flat and _padding(batch) < _LITTLE):
        return _packed(batch, flat, pad_id, step=1 if device.type == "cpu" else _LENGTH_STEP).to(device)
    length = needed = _row_length(batch, "flat" if flat else "tree")
    if device.type != "cpu":
        rounded = needed + -needed % _LENGTH_STEP
        length = max(needed, rounded if longest is None else min(rounded, longest))
    rows = _flat(batch, pad_id, length) if flat else _tree(batch, pad_id, length)
    return rows.to(device)


def _padding(batch: Batch) -> float:
    """Return the share of padding in flat rows."""
    lengths = [length for rows in batch.row_lengths("flat") for length in rows]
    return 1 - sum(lengths) / (len(lengths) * max(lengths)) if lengths else 0.0


def _row_length(batch: Batch, layout: Layout) -> int:
    return max((max(lengths, default=0) for lengths in batch.row_lengths(layout)), default=0)


def _flat(batch: Batch, pad_id: int, L: int) -> Rows:
    rows: list[list[int]] = []
    source_PKT, last_PK = _no_positions(batch)
    for p, (prompt, responses) in enumerate(zip(batch.prompt_ids, batch.response_ids, strict=True)):
        for k, ids in enumerate(responses):
            first = len(rows) * L + len(prompt) - 1
            source_PKT[p, k, : len(ids)] = torch.arange(first, first + len(ids))
            last_PK[p, k] = first + len(ids)
            rows.append([*prompt, *ids])
    ids_RL = _widened(padded(rows, pad_id), L, pad_id)
    return Rows(ids_RL, torch.arange(L).expand(len(rows), L), None, source_PKT, last_PK, *_answers(batch))


def _tree(batch: Batch, pad_id: int, L: int) -> Rows:
    rows: list[list[int]] = []
    positions: list[list[int]] = []
    segments: list[list[int]] = []
    source_PKT, last_PK = _no_positions(batch)
    for p, (prompt, responses) in enumerate(zip(batch.prompt_ids, batch.response_ids, strict=True)):
        shared = len(prompt) - 1
        row, position, segment = list(prompt[:-1]), list(range(shared)), [0] * shared
        for k, ids in enumerate(responses):
            first = p * L + len(row)
            source_PKT[p, k, : len(ids)] = torch.arange(first, first + len(ids))
            last_PK[p, k] = first + len(ids)
            row += [prompt[-1], *ids]
            position += range(shared, shared + 1 + len(ids))
            segment += [k + 1] * (1 + len(ids))
        rows.append(row)
        positions.append(position)
        segments.append(segment)
    ids_RL, position_RL, segment_RL = (
        _widened(padded(values, fill), L, fill) for values, fill in ((rows, pad_id), (positions, 0), (segments, -1))
    )
    return Rows(ids_RL, position_RL, segment_RL, source_PKT, last_PK, *_answers(batch))


def _packed(batch: Batch, flat: bool, pad_id: int, *, step: int) -> Rows:
    """``step``: what the length of the row is a multiple of; padding is one more piece, which nothing else sees."""
    ids: list[int] = []
    positions: list[int] = []
    pieces: list[Piece] = []
    source_PKT, last_PK = _no_positions(batch)

    def add(tokens: Sequence[int], position: int, before: tuple[Span, ...] = ()) -> Span:
        span = Span(len(ids), len(tokens))
        ids.extend(tokens)
        positions.extend(range(position, position + len(tokens)))
        pieces.append(Piece(span, before))
        return span

    for p, (prompt, responses) in enumerate(zip(batch.prompt_ids, batch.response_ids, strict=True)):
        shared = 0 if flat else len(prompt) - 1
        before = (add(prompt[:shared], 0),) if shared else ()
        for k, response in enumerate(responses):
            first = sum(add([*prompt[shared:], *response], shared, before)) - len(response) - 1
            source_PKT[p, k, : len(response)] = torch.arange(first, first + len(response))
            last_PK[p, k] = first + len(response)
    missing = -len(ids) % step
    if missing:
        add([pad_id] * missing, 0)
        positions[-missing:] = [0] * missing
    row = (torch.tensor([ids], dtype=torch.long), torch.tensor([positions], dtype=torch.long))
    return Rows(*row, None, source_PKT, last_PK, *_answers(batch), tuple(pieces))


def _widened(rows_RL: Tensor, L: int, fill: int) -> Tensor:
    return torch.nn.functional.pad(rows_RL, (0, L - rows_RL.shape[1]), value=fill) if rows_RL.shape[1] < L else rows_RL


def _no_positions(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return ``source_PKT`` and ``last_PK`` before they are filled in."""
    return torch.zeros(batch.P, batch.K, batch.T, dtype=torch.long), torch.zeros(batch.P, batch.K, dtype=torch.long)


def _answers(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return ``place_N`` and ``target_N``."""
    tokens = [token for responses in batch.response_ids for ids in responses for token in ids]
    return batch.mask_PKT.flatten().nonzero().squeeze(1), torch.tensor(tokens, dtype=torch.long)


def tree_mask(rows: Rows, window: int | None = None) -> Tensor:
    """Return which keys each query sees; bool (R, 1, L, L), True = visible.

    A branch sees the prompt and itself, causally. The ``window`` of sliding-window layers counts *positions*, not
    columns: branches follow one another in the row but start at the same position.
    """
    assert rows.segment_RL is not None
    segment, position = rows.segment_RL, rows.position_ids_RL
    L = segment.shape[1]
    query, key = segment[:, :, None], segment[:, None, :]
    column = torch.arange(L, device=segment.device)
    visible = (column[:, None] >= column[None, :]) & ((key == 0) | (key == query)) & (query >= 0) & (key >= 0)
    if window is not None:
        visible &= (position[:, :, None] - position[:, None, :]) < window
    # A padded query sees itself: softmax over no key at all would be NaN.
    visible |= torch.eye(L, dtype=torch.bool, device=segment.device)
    return visible[:, None]


def model_inputs(rows: Rows, config: Any, attention: str, dtype: torch.dtype) -> dict[str, Any]:
    """Return keyword arguments of a transformers backbone: ids, positions and one mask per attention type.

    ``attention`` is the model's attention implementation. ``eager`` adds its mask to the scores, so it gets an
    additive one: a boolean mask would be added as 0 and 1.
    """
    inputs: dict[str, Any] = {"input_ids": rows.input_ids_RL, "use_cache": False}
    if rows.segment_RL is None and rows.pieces is None:
        return inputs
    inputs["position_ids"] = rows.position_ids_RL
    kinds = attention_kinds(config)
    masks: dict[str, Tensor] = {}
    for kind, window in kinds.items():
        if rows.pieces is not None:
            if window not in rows.packings:
                rows.packings[window] = Packing(rows.pieces, window)
            masks[kind] = rows.packings[window].as_mask()
        else:
            in_use = autocast_dtype(rows.input_ids_RL.device) or dtype  # in which queries and keys will be
            masks[kind] = _for_attention(tree_mask(rows, window), attention, in_use)
    # Models with several kinds of layers take a mapping; models with one kind take the mask itself.
    inputs["attention_mask"] = masks if len(masks) > 1 else next(iter(masks.values()))
    return inputs


def attention_kinds(config: Any) -> dict[str, int | None]:
    """Return the attention types of a model's layers with their windows (None: all tokens before).

    Raises ValueError for a type that a tree row cannot express (recurrent, chunked, linear attention).
    """
    if "local" in (getattr(config, "attention_layers", None) or ()):
        raise ValueError("local layers of GPT-Neo count columns, not positions")
    window: int | None = getattr(config, "sliding_window", None)
    layer_types: list[str] | None = getattr(config, "layer_types", None)
    kinds = sorted(set(layer_types)) if layer_types else ["sliding_attention" if window else "full_attention"]
    known = {"full_attention": None, "sliding_attention": window}
    for kind in kinds:
        if kind not in known:
            raise ValueError(f"layers of type {kind!r} have no tree layout")
    return {kind: known[kind] for kind in kinds}


def _for_attention(visible: Tensor, attention: str, dtype: torch.dtype) -> Tensor:
    if attention in ("sdpa", PACKED) and visible.device.type == "cpu":
        return visible
    if attention in ("sdpa", "eager", PACKED):  # on an accelerator SDPA would make the same of it anew in every layer
        return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill(
            ~visible, torch.finfo(dtype).min
        )
    raise ValueError(f"attention implementation {attention!r} takes no tree mask")


def pad_left(prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return ids and mask (R, L) of prompts padded on the left, for generation."""
    ids = padded(prompts, pad_id, side="left")
    mask = padded([[1] * len(prompt) for prompt in prompts], 0, side="left")
    return moved(ids, device), moved(mask, device)
