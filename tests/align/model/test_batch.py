from __future__ import annotations

import math
from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from align import Policy, Preferences
from align.data import Example
from align.data.examples import tokenize
from align.model.batch import Batch, batches_by_length, padded

ids = st.lists(st.integers(0, 50), min_size=1, max_size=12)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    prompts = draw(st.lists(ids, min_size=1, max_size=7))
    responses = [tuple(draw(st.lists(ids, min_size=1, max_size=3))) for _ in prompts]
    return Batch(tuple(prompts), tuple(responses), tuple(range(len(prompts))))


def ragged() -> Batch:
    return Batch(
        prompt_ids=([1, 2], [3], [4, 5, 6]),
        response_ids=(([7],), ([8, 9, 10], [11]), ([12, 13], [14, 15])),
        rows=(10, 11, 12),
        columns={
            "weight_P": torch.tensor([1.0, 2.0, 3.0]),
            "score_PK": torch.arange(6.0).reshape(3, 2),
            "logp_PKT": torch.arange(18.0).reshape(3, 2, 3),
        },
    )


def test_shapes_and_masks_of_a_ragged_batch() -> None:
    batch = ragged()
    assert (batch.P, batch.K, batch.T, batch.tokens) == (3, 2, 3, 9)
    assert batch.length_PK.tolist() == [[1, 0], [3, 1], [2, 2]]
    assert batch.valid_PK.tolist() == [[True, False], [True, True], [True, True]]
    assert batch.mask_PKT[1].tolist() == [[True, True, True], [True, False, False]]


def test_select_cuts_every_column_to_the_chosen_prompts() -> None:
    chosen = ragged().select([2, 0])
    assert chosen.rows == (12, 10)
    assert chosen["weight_P"].tolist() == [3, 1]
    assert chosen["logp_PKT"].shape == (2, 2, 2)
    assert chosen["logp_PKT"][0].tolist() == [[12, 13], [15, 16]]
    assert ragged().select([0])["score_PK"].tolist() == [[0]]


@pytest.mark.parametrize("name", ["score_P", "score_PKT", "score", "score_KP"])
def test_a_column_must_have_the_shape_its_name_promises(name: str) -> None:
    with pytest.raises(ValueError, match="column"):
        ragged().with_columns(**{name: torch.zeros(3, 2)})


@given(batches(), st.integers(1, 200), st.sampled_from(["tree", "flat"]))
def test_micro_batches_keep_every_prompt_once_within_the_budget(batch: Batch, tokens: int, layout: str) -> None:
    parts = list(batch.micro_batches(tokens, layout))  # pyright: ignore[reportArgumentType]
    assert sorted(row for part in parts for row in part.rows) == list(range(batch.P))
    for part in parts:
        lengths = [length for rows in part.row_lengths(layout) for length in rows]  # pyright: ignore[reportArgumentType]
        assert len(lengths) * max(lengths) <= tokens or part.P == 1
        for p, row in enumerate(part.rows):
            assert part.response_ids[p] == batch.response_ids[row]


def test_from_examples_marks_what_the_data_does_not_give() -> None:
    examples = [
        Example(
            prompt_ids=[1], responses=[[2], [3]], scores=[1.0, None], margin=None, weight=1.0, prompt_id="a", index=4
        ),
        Example(prompt_ids=[1], responses=[[2]], scores=[0.5], margin=2.0, weight=0.5, prompt_id="b", index=9),
    ]
    batch = Batch.from_examples(examples)
    assert batch.rows == (4, 9)
    assert batch["weight_P"].tolist() == [1, 0.5]
    assert batch["score_PK"][0, 0] == 1
    assert math.isnan(batch["score_PK"][0, 1])
    assert math.isnan(batch["margin_P"][0])


# Micro-batches are the cheapest cut, found by trying all of them


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


def test_an_example_becomes_the_columns_of_the_data() -> None:
    """Two rankings by hand: 0 ≻ 1, 0 ≻ 2, 2 ≻ 1 of three responses, and 1 ≻ 0 of two."""
    examples = [
        Example(
            prompt_ids=[1, 2],
            responses=[[3], [4, 5], [6]],
            scores=[3.0, None, 1.0],
            margin=0.25,
            weight=0.5,
            prompt_id="a",
            index=4,
            comparisons=((0, 1), (0, 2), (2, 1)),
        ),
        Example(
            prompt_ids=[7],
            responses=[[8], [9]],
            scores=[0.0, 2.0],
            margin=None,
            weight=2.0,
            prompt_id="b",
            index=1,
            comparisons=((1, 0),),
        ),
    ]
    batch = Batch.from_examples(iter(examples))
    assert (batch.prompt_ids, batch.rows) == (([1, 2], [7]), (4, 1))
    assert batch.response_ids == (([3], [4, 5], [6]), ([8], [9]))
    assert set(batch.columns) == {"weight_P", "better_PKK", "margin_P", "score_PK"}
    nan = math.nan
    for name, expected in {
        "weight_P": [0.5, 2.0],
        "margin_P": [0.25, nan],
        "score_PK": [[3.0, nan, 1.0], [0.0, 2.0, nan]],
    }.items():
        torch.testing.assert_close(batch[name], torch.tensor(expected), equal_nan=True)
    assert batch["better_PKK"].nonzero().tolist() == [[0, 0, 1], [0, 0, 2], [0, 2, 1], [1, 1, 0]]
    assert (batch["better_PKK"].dtype, batch["better_PKK"].shape) == (torch.bool, (2, 3, 3))


def test_no_examples_are_a_batch_without_prompts() -> None:
    batch = Batch.from_examples([])
    assert (batch.P, batch.K, batch.T, batch.tokens) == (0, 0, 0, 0)
    assert list(batch.micro_batch_prompts(8, "flat")) == []


def test_selecting_cuts_every_axis_and_joining_pads_it_with_zero() -> None:
    """Of prompts with two, one and two responses of up to three tokens; by hand, for every shape of a column."""
    batch = ragged().with_columns(better_PKK=torch.arange(1.0, 13.0).reshape(3, 2, 2))
    one, rest = batch.select([1]), batch.select([0, 2])
    assert [rest[name].shape for name in ("weight_P", "score_PK", "better_PKK", "logp_PKT")] == [
        (2,),
        (2, 2),
        (2, 2, 2),
        (2, 2, 2),
    ]
    alone = batch.select([0])
    assert alone["better_PKK"].tolist() == [[[1]]]
    assert alone["logp_PKT"].tolist() == [[[0]]]
    joined = Batch.concatenate([alone, one, batch.select([2])])
    assert joined.rows == (10, 11, 12)
    assert (joined.prompt_ids, joined.response_ids) == (batch.prompt_ids, batch.response_ids)
    assert joined["weight_P"].tolist() == [1, 2, 3]
    assert joined["score_PK"].tolist() == [[0, 0], [2, 3], [4, 5]]
    assert joined["better_PKK"].tolist() == [[[1, 0], [0, 0]], [[5, 6], [7, 8]], [[9, 10], [11, 12]]]
    assert joined["logp_PKT"].tolist() == [
        [[0, 0, 0], [0, 0, 0]],
        [[6, 7, 8], [9, 10, 11]],
        [[12, 13, 0], [15, 16, 0]],
    ]
    assert Batch.concatenate([]).P == 0


def test_row_lengths_by_hand() -> None:
    """Flat: prompt and response. Tree: the prompt without its last token once, and that before each response."""
    assert ragged().row_lengths("flat") == [[3], [4, 2], [5, 5]]
    assert ragged().row_lengths("tree") == [[1 + 2], [0 + 4 + 2], [2 + 3 + 3]]


def test_what_no_batch_can_have() -> None:
    for prompts, responses in (([1], []), ([[1], []], ([[2]], [[2]])), ([[1]], ([[2], []],)), ([[1]], ([[2]], [[3]]))):
        with pytest.raises(AssertionError):
            Batch(tuple(prompts), tuple(tuple(row) for row in responses), tuple(range(len(prompts))))  # pyright: ignore


def test_the_longest_come_first_and_equal_ones_in_their_order() -> None:
    batch = of_lengths([3, 9, 5, 9, 3])
    assert list(batch.micro_batch_prompts(1, "flat")) == [[1], [3], [2], [0], [4]]


def test_every_row_of_a_prompt_counts_and_a_call_costs_256_tokens() -> None:
    """Two prompts with three rows of 4, in 24 tokens but not in 23; 100 and 300 cost less together, 100 and 400 not."""
    batch = Batch(([1], [2]), tuple(([5] * 3, [6] * 3, [7] * 3) for _ in range(2)), (0, 1))
    assert list(batch.micro_batch_prompts(24, "flat")) == [[0, 1]]
    assert list(batch.micro_batch_prompts(23, "flat")) == [[0], [1]]
    for longer, parts in ((355, 1), (357, 2)):
        assert len(list(of_lengths([longer, 100]).micro_batches(8192, "flat"))) == parts
        assert len(list(of_lengths([longer, 100]).micro_batch_prompts(8192, "flat"))) == parts


@pytest.mark.parametrize(
    ("lengths", "tokens", "expected"),
    [
        ([5, 3, 5, 3, 1], 10, [[4, 1, 3], [0, 2]]),  # 3 rows of 3 are 9
        ([5, 3, 5, 3, 1], 8, [[4, 1], [3], [0], [2]]),  # 3 of 3 are 9, 2 of 5 are 10
        ([5, 3, 5, 3, 1], 9, [[4, 1, 3], [0], [2]]),  # just as many as are allowed
        ([7, 9], 1, [[0], [1]]),
        ([], 10, []),
    ],
)
def test_rows_of_similar_length_share_a_batch(lengths: list[int], tokens: int, expected: list[list[int]]) -> None:
    assert list(batches_by_length(lengths, tokens)) == expected


def test_padding_by_hand() -> None:
    assert padded([[1, 2], [3]], 9).tolist() == [[1, 2], [3, 9]]
    assert padded([[1, 2], [3]], 9, side="left").tolist() == [[1, 2], [9, 3]]
    assert padded([[0.5], []], -1, dtype=torch.float32).tolist() == [[0.5], [-1]]
    assert padded([], 0).shape == (0, 0)


def test_concatenate_restores_what_select_cut(tiny_policy: Policy, pair_rows: list[dict[str, str]]) -> None:
    data = tokenize(Preferences.from_rows(pair_rows), tiny_policy.tokenizer, max_length=200, unit="pair")
    batch = Batch.from_examples(data[i] for i in range(12))
    generator = torch.Generator().manual_seed(0)
    logp_PKT = torch.rand(batch.P, batch.K, batch.T, generator=generator) * batch.mask_PKT
    batch = batch.with_columns(logp_PKT=logp_PKT)
    joined = Batch.concatenate(list(batch.micro_batches(300, "tree")))
    order = [joined.rows.index(row) for row in batch.rows]
    again = joined.select(order)
    assert again.prompt_ids == batch.prompt_ids
    assert again.response_ids == batch.response_ids
    for name, column in batch.columns.items():
        assert torch.equal(again[name].nan_to_num(9), column.nan_to_num(9)), name
