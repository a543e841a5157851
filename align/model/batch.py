"""The batch every method sees: P prompts with K responses each.

Shape suffixes used everywhere in this project:

=== =======================================================================
P   prompts of the batch
K   responses per prompt (ragged: the largest count; see ``valid_PK``)
T   tokens of a response, end-of-turn token included (ragged; see ``mask_PKT``)
R   rows of a model input, L their padded length (see :mod:`align.model.tree_layout`)
N   response tokens of the whole batch, flattened
V   vocabulary, D hidden size
=== =======================================================================

SFT is K=1; reward modelling, DPO and SLiC-HF are K=2; RRHF, RFT and PPO take any K.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import torch

from align.model.devices import moved

if TYPE_CHECKING:
    from torch import Tensor

    from align.data import Example

Layout = Literal["tree", "flat"]


@dataclass(frozen=True)
class Batch:
    """P prompts × K responses as token ids, with named columns of tensors.

    A column comes from the data or from a method. The suffix of its name is its shape (``weight_P``, ``score_PK``,
    ``reference_logp_PKT``), so that :meth:`select` can cut every column to the chosen prompts. Prompt ``p`` has
    ``len(response_ids[p])`` responses, the chosen one first in preference data.
    """

    prompt_ids: tuple[Sequence[int], ...]
    response_ids: tuple[tuple[Sequence[int], ...], ...]
    rows: tuple[int, ...]
    """Index of each prompt in its dataset, for error messages."""
    columns: Mapping[str, Tensor] = field(default_factory=dict[str, "Tensor"])
    laid_out: dict[Any, Any] = field(default_factory=dict[Any, Any], compare=False, repr=False)
    """Its rows as :func:`align.model.tree_layout.lay_out` made them, for all passes over the same tokens."""

    def __post_init__(self) -> None:
        assert len(self.prompt_ids) == len(self.response_ids) == len(self.rows)
        assert all(self.prompt_ids), "a prompt without tokens cannot predict its first response token"
        assert all(ids for responses in self.response_ids for ids in responses), "an empty response"
        for name, column in self.columns.items():
            suffix = _suffix(name)
            if column.ndim != len(suffix) or column.shape[0] != self.P:
                raise ValueError(
                    f"column {name} has shape {tuple(column.shape)}, its name says {suffix} with P={self.P}"
                )

    @classmethod
    def from_examples(cls, examples: Iterable[Example]) -> Batch:
        """Return a batch of tokenised examples, with the columns of the data.

        These are ``weight_P``; ``better_PKK``, True at (p, i, j) if response i was preferred to response j;
        ``good_PK``, of judgements alone, True where response k is known to be good; ``margin_P`` and ``score_PK``, NaN
        where the data has none.
        """
        examples = list(examples)
        width = max((len(example.responses) for example in examples), default=0)
        scores = [[math.nan if score is None else score for score in example.scores] for example in examples]
        better = torch.zeros(len(examples), width, width, dtype=torch.bool)
        for p, example in enumerate(examples):
            for i, j in example.comparisons:
                better[p, i, j] = True
        judged = {"good_PK": padded([example.good for example in examples], 0, dtype=torch.bool)}
        margins = [math.nan if example.margin is None else example.margin for example in examples]
        return cls(
            prompt_ids=tuple(example.prompt_ids for example in examples),
            response_ids=tuple(tuple(example.responses) for example in examples),
            rows=tuple(example.index for example in examples),
            columns={
                "weight_P": torch.tensor([example.weight for example in examples], dtype=torch.float32),
                "better_PKK": better,
                "margin_P": torch.tensor(margins, dtype=torch.float32),
                "score_PK": padded(scores, math.nan, dtype=torch.float32),
                **(judged if any(example.good for example in examples) else {}),
            },
        )

    @property
    def P(self) -> int:
        """Number of prompts."""
        return len(self.prompt_ids)

    @property
    def K(self) -> int:
        """Largest number of responses to a prompt."""
        return max((len(responses) for responses in self.response_ids), default=0)

    @property
    def T(self) -> int:
        """Length of the longest response, in tokens."""
        return max((len(ids) for responses in self.response_ids for ids in responses), default=0)

    @cached_property
    def length_PK(self) -> Tensor:
        """Tokens of each response, 0 if there is none; int64 (P, K)."""
        return padded([[len(ids) for ids in responses] for responses in self.response_ids], 0)

    @cached_property
    def valid_PK(self) -> Tensor:
        """True where a response exists; bool (P, K)."""
        return self.length_PK > 0

    @cached_property
    def mask_PKT(self) -> Tensor:
        """True where a response token exists; bool (P, K, T)."""
        return torch.arange(self.T, device=self.length_PK.device) < self.length_PK[..., None]

    @property
    def tokens(self) -> int:
        """Number of response tokens, the usual denominator of a token mean."""
        return sum(len(ids) for responses in self.response_ids for ids in responses)

    def __getitem__(self, column: str) -> Tensor:
        return self.columns[column]

    def __contains__(self, column: str) -> bool:
        return column in self.columns

    def with_columns(self, **columns: Tensor) -> Batch:
        """Return the batch with further columns, named with their shape suffix (``reference_logp_PKT=...``)."""
        return replace(self, columns={**self.columns, **columns})

    def on(self, device: torch.device) -> Batch:
        """Return the batch with its columns, lengths and masks on ``device``, for a loss; see :func:`moved`.

        Of numbers that the processor needs, such as a method's weight, the batch itself is asked: those of the
        accelerator it would wait for.
        """
        if device.type == "cpu":
            return self
        there = replace(self, columns={name: moved(column, device) for name, column in self.columns.items()})
        vars(there)["length_PK"] = moved(self.length_PK, device)  # of which the masks are made
        return there

    def select(self, prompts: Sequence[int]) -> Batch:
        """Return the batch of these prompts; every column is cut to them and to their K and T."""
        index = torch.tensor(prompts, dtype=torch.long)
        chosen = Batch(
            prompt_ids=tuple(self.prompt_ids[p] for p in prompts),
            response_ids=tuple(self.response_ids[p] for p in prompts),
            rows=tuple(self.rows[p] for p in prompts),
        )
        extent = {"K": chosen.K, "T": chosen.T}
        columns: dict[str, Tensor] = {}
        for name, column in self.columns.items():
            column = column[index.to(column.device)]
            for dim, axis in enumerate(_suffix(name)):
                if axis in extent:
                    column = column.narrow(dim, 0, extent[axis])
            columns[name] = column
        return chosen.with_columns(**columns)

    @classmethod
    def concatenate(cls, parts: Sequence[Batch]) -> Batch:
        """Join batches with the same columns into one; columns are padded with 0."""
        joined = cls(
            prompt_ids=tuple(ids for part in parts for ids in part.prompt_ids),
            response_ids=tuple(responses for part in parts for responses in part.response_ids),
            rows=tuple(row for part in parts for row in part.rows),
        )
        columns: dict[str, Tensor] = {}
        for name in parts[0].columns if parts else ():
            shape = [{"P": joined.P, "K": joined.K, "T": joined.T}[axis] for axis in _suffix(name)]
            column = parts[0][name].new_zeros(shape)
            start = 0
            for part in parts:
                place = (slice(start, start + part.P), *(slice(size) for size in part[name].shape[1:]))
                column[place] = part[name]
                start += part.P
            columns[name] = column
        return joined.with_columns(**columns)

    def row_lengths(self, layout: Layout) -> list[list[int]]:
        """Return for each prompt the lengths of its model rows in this layout (see :mod:`align.model.tree_layout`)."""
        if layout == "flat":
            return [
                [len(prompt) + len(ids) for ids in responses]
                for prompt, responses in zip(self.prompt_ids, self.response_ids, strict=True)
            ]
        return [
            [len(prompt) - 1 + sum(1 + len(ids) for ids in responses)]  # each begins with the prompt's last token
            for prompt, responses in zip(self.prompt_ids, self.response_ids, strict=True)
        ]

    def micro_batches(
        self, tokens: int, layout: Layout, *, overhead: int = 256, packed: bool = False
    ) -> Iterator[Batch]:
        """Split into batches of at most ``tokens`` padded tokens, with rows of similar length together.

        The prompts are sorted by length and cut where the total cost is lowest. A batch costs its padded tokens plus
        ``overhead``, the cost of a model call in tokens. A prompt stays together with its responses (a pairwise loss
        needs them in one graph), so a prompt longer than the budget is a batch of its own. ``packed`` rows have no
        padding, so a batch is as large as the budget lets it be.
        """
        for prompts in self.micro_batch_prompts(tokens, layout, overhead=overhead, packed=packed):
            yield self.select(prompts)

    def micro_batch_prompts(
        self, tokens: int, layout: Layout, *, overhead: int = 256, packed: bool = False
    ) -> Iterator[list[int]]:
        """Yield the indices of the prompts in each batch of :meth:`micro_batches`."""
        lengths = self.row_lengths(layout)
        longest = [max(rows, default=0) for rows in lengths]
        # Longest first: memory peaks in the first micro-batch, not in the last.
        order = sorted(range(self.P), key=lambda p: (-longest[p], p))
        if packed:
            cuts = _fullest_cuts([sum(lengths[p]) for p in order], tokens)
        else:
            cuts = _cheapest_cuts([longest[p] for p in order], [len(lengths[p]) for p in order], tokens, overhead)
        for start, end in pairwise(cuts):
            yield order[start:end]


def padded(
    rows: Sequence[Sequence[float]],
    fill: float,
    *,
    dtype: torch.dtype | None = None,
    side: Literal["left", "right"] = "right",
) -> Tensor:
    """Return rows of uneven lengths as one tensor, padded with ``fill``; (rows, longest). ``dtype``: None is long."""
    dtype = dtype or torch.long
    if not rows:
        return torch.empty(0, 0, dtype=dtype)
    tensors = [torch.tensor(row, dtype=dtype) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=fill, padding_side=side)


def _cheapest_cuts(widths: Sequence[int], rows: Sequence[int], tokens: int, overhead: int) -> list[int]:
    """Return the cheapest cuts [0, …, len(widths)] of items that have falling widths, by dynamic programming.

    Item i has ``rows[i]`` rows. A part costs ``overhead`` plus its padded tokens, its number of rows times its first
    width; a part of several items has at most ``tokens`` of them.
    """
    cost, begin = [0.0], [0]  # for the first n items: cost of their cheapest cuts, and start of the last part
    for end in range(1, len(widths) + 1):
        height, best = 0, (math.inf, end - 1)
        for start in range(end - 1, -1, -1):
            height += rows[start]
            padded = height * widths[start]
            if padded > tokens and start < end - 1:
                break
            best = min(best, (cost[start] + padded + overhead, start))
        cost.append(best[0])
        begin.append(best[1])
    cuts = [len(widths)]
    while cuts[-1]:
        cuts.append(begin[cuts[-1]])
    return cuts[::-1]


def _fullest_cuts(sizes: Sequence[int], limit: int) -> list[int]:
    """Return cuts [0, …, len(sizes)] into parts of at most ``limit``, each as large as it can be, or of one item."""
    cuts, filled = [0], 0
    for i, size in enumerate(sizes):
        if i > cuts[-1] and filled + size > limit:
            cuts.append(i)
            filled = 0
        filled += size
    return [*cuts, len(sizes)] if sizes else cuts


def batches_by_length(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Yield indices of rows of similar length, shortest first: at most ``tokens`` padded tokens, or one row."""
    part: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if part and (len(part) + 1) * lengths[i] > tokens:
            yield part
            part = []
        part.append(i)
    if part:
        yield part


def _suffix(name: str) -> str:
    """Return the shape suffix of a column's name: ``reference_logp_PKT`` → ``PKT``."""
    suffix = name.rpartition("_")[2]
    if suffix not in ("P", "PK", "PKK", "PKT"):
        raise ValueError(f"column {name!r} must end in its shape: _P, _PK, _PKK or _PKT")
    return suffix
