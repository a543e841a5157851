"""Micro-batches are the cheapest cut there is, found by trying all of them."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.model.batch import Batch


def of_lengths(lengths: list[int]) -> Batch:
    """Prompts with one response; their flat rows have these lengths."""
    return Batch(
        prompt_ids=tuple([1] for _ in lengths),
        response_ids=tuple(([1] * (length - 1),) for length in lengths),
        rows=tuple(range(len(lengths))),
    )


def cost(parts: list[list[int]], tokens: int, overhead: int) -> float:
    """Padded tokens plus what the calls cost; infinite where a part of several rows is over the budget."""
    if any(len(part) > 1 and len(part) * max(part) > tokens for part in parts):
        return float("inf")
    return sum(len(part) * max(part) + overhead for part in parts)


@given(st.lists(st.integers(2, 40), min_size=1, max_size=7), st.integers(1, 150), st.integers(0, 40))
def test_no_cut_is_cheaper(lengths: list[int], tokens: int, overhead: int) -> None:
    parts = [
        [rows[0] for rows in part.row_lengths("flat")]
        for part in of_lengths(lengths).micro_batches(tokens, "flat", overhead=overhead)
    ]
    ordered = sorted(lengths, reverse=True)
    assert [length for part in parts for length in part] == ordered
    inner = range(1, len(ordered))
    every = [(0, *cuts, len(ordered)) for n in range(len(ordered)) for cuts in combinations(inner, n)]
    cheapest = min(cost([ordered[a:b] for a, b in pairwise(cuts)], tokens, overhead) for cuts in every)
    assert cost(parts, tokens, overhead) == cheapest


@pytest.mark.parametrize(("overhead", "sizes"), [(0, [1, 3, 4]), (20, [1, 3, 4]), (500, [1, 7]), (10**6, [8])])
def test_a_call_is_weighed_against_padding(overhead: int, sizes: list[int]) -> None:
    batch = of_lengths([900, 100, 100, 100, 10, 10, 10, 10])
    assert [part.P for part in batch.micro_batches(8192, "flat", overhead=overhead)] == sizes
