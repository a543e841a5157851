"""Prompts that are computed in one row, and steps in blocks of rows, against padded ones."""

from __future__ import annotations

import inspect
import random
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from align.model.packing import use_packed_attention
from align.model.tree_layout import pad_left
from align.sampling import uneven_prompts as module
from align.sampling.decode_loop import decode, make_cache
from align.sampling.uneven_prompts import RowBlocks, blocks, prefill_packed
from tests.align.model.test_tree_layout import CONFIGS, policy_of

PROMPTS = [[7, 8, 9, 10, 11, 12, 13], [17, 18, 19, 20], [17, 18, 19], [16]]


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "granite"])
@pytest.mark.parametrize("n", [1, 3])
def test_packed_prompts_fill_the_cache_as_padded_ones(name: str, n: int) -> None:
    model: Any = policy_of(CONFIGS[name], "sdpa").model.eval()
    ids, mask = pad_left(PROMPTS, 0, model.device)
    with torch.no_grad():
        expected = model(ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0), use_cache=True)
    use_packed_attention(model.config)
    cache: Any = make_cache(model)
    logits, found = prefill_packed(model, cache, PROMPTS, n)
    assert torch.equal(found, mask.repeat_interleave(n, 0))
    torch.testing.assert_close(logits, expected.logits[:, -1].repeat_interleave(n, 0), atol=1e-5, rtol=1e-4)
    real = found[:, None, :, None].bool()
    for ours, theirs in zip(cache.layers, expected.past_key_values.layers, strict=True):
        for one, other in ((ours.keys, theirs.keys), (ours.values, theirs.values)):
            torch.testing.assert_close(one * real, other.repeat_interleave(n, 0) * real, atol=1e-5, rtol=1e-4)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.integers(1, 2**16))
def test_blocks_hold_every_row_once_and_all_of_its_keys(firsts: list[int], width: int) -> None:
    half = sorted(firsts)[: len(firsts) // 2]
    random.Random(0).shuffle(half)  # rows are moved into gaps
    firsts = [*half, *sorted(firsts)[len(half) :]]
    found = blocks(firsts, width)
    assert [row for block in found for row in range(block.start, block.end)] == list(range(len(firsts)))
    for start, end, first, even in found:
        assert first == min(firsts[start:end])
        assert even == (len(set(firsts[start:end])) == 1)


def test_rows_are_cut_where_padding_costs_more_than_a_call() -> None:
    firsts = [0] * 10 + [100] * 10
    width = module._CALL // 1000 + 1  # pyright: ignore[reportPrivateUsage]
    assert len(blocks(firsts, width - 1)) == 1  # 10 rows read 100 keys too many
    assert blocks(firsts, width + 1) == [(0, 19, 0, False), (19, 20, 100, True)]
    assert blocks(firsts, 10 * width) == [(0, 10, 0, True), (10, 20, 100, True)]


@pytest.mark.parametrize("groups", [1, 2])
def test_a_step_in_blocks_is_attention_with_a_mask(groups: int) -> None:
    generator = torch.Generator().manual_seed(0)
    firsts = [0, 0, 3, 1, 5, 5, 7]
    query, key, value = (
        torch.randn(7, h, L, 8, generator=generator) for h, L in ((4, 1), (4 // groups, 9), (4 // groups, 9))
    )
    visible = torch.arange(9) >= torch.tensor(firsts)[:, None]
    key[~visible[:, None].expand(-1, key.shape[1], -1)] = 1e3  # padding that must not be seen
    shown = visible[:, None, None]
    more = (x.repeat_interleave(groups, 1) for x in (key, value))
    expected = F.scaled_dot_product_attention(query, *more, shown, scale=0.3).transpose(1, 2)
    for width in (1, 2**20):
        found = RowBlocks(blocks(firsts, width), shown).attend(query, key, value, 0.3)
        torch.testing.assert_close(found, expected)


def test_prompts_are_computed_without_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = policy_of(CONFIGS["llama"], "sdpa").model.eval()
    use_packed_attention(model.config)
    seen: list[tuple[int, ...]] = []
    forward = model.forward

    def spy(input_ids: torch.Tensor, **settings: Any) -> Any:
        seen.append(tuple(input_ids.shape))
        return forward(input_ids=input_ids, **settings)

    monkeypatch.setattr(model, "forward", spy)
    monkeypatch.setattr(spy, "__signature__", inspect.signature(forward), raising=False)
    cache: Any = make_cache(model)

    def end(logits: torch.Tensor, rows: Any) -> tuple[torch.Tensor, list[bool]]:
        return logits.argmax(-1), [True] * len(rows)

    for _ in decode(model, cache, PROMPTS, n=2, choose=end, max_new_tokens=3, pad_id=0, takes_masks=True):
        pass
    assert seen == [(1, sum(map(len, PROMPTS)))]
