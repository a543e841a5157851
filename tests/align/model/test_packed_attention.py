"""Attention over packed rows against a softmax over the whole row with a dense mask, gradients included."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from align.model import packed_attention as module
from align.model.batch import Batch
from align.model.packed_attention import Packing, Piece, Span
from align.model.policy import Policy
from align.model.tree_layout import lay_out

TREE = (  # two prompts with branches, one of them far longer, and a row alone
    Piece(Span(0, 5)),
    Piece(Span(5, 3), (Span(0, 5),)),
    Piece(Span(8, 11), (Span(0, 5),)),
    Piece(Span(19, 2)),
    Piece(Span(21, 1), (Span(19, 2),)),
    Piece(Span(22, 4), (Span(19, 2),)),
    Piece(Span(26, 9)),
)
TOKENS = 35


def attend(pieces: tuple[Piece, ...], window: int | None, *qkv: Tensor) -> Tensor:
    mask = Packing(pieces, window).as_mask()
    query, key, value = (x[None] for x in qkv)
    out, _ = module._attend(SimpleNamespace(), query, key, value, mask, scaling=0.3)  # pyright: ignore[reportPrivateUsage]
    return out[0].transpose(0, 1)


def dense(pieces: tuple[Piece, ...], window: int | None, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The oracle: each query's keys one after the other, from the definition."""
    seen = torch.full((TOKENS, TOKENS), -math.inf, dtype=query.dtype)
    for own, before in pieces:
        for i in range(own.length):
            keys = [place for span in before for place in range(span.start, sum(span))]
            keys += range(own.start, own.start + i + 1)
            seen[own.start + i, keys[-window:] if window else keys] = 0
    groups = query.shape[0] // key.shape[0]
    key, value = key.repeat_interleave(groups, 0), value.repeat_interleave(groups, 0)
    return (0.3 * query @ key.transpose(1, 2) + seen).softmax(-1) @ value


def tensors(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Queries of four heads, keys and values of two; values are wider."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((4, TOKENS, 6), (2, TOKENS, 6), (2, TOKENS, 7))
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("window", [None, 1, 3, 7])
@pytest.mark.parametrize(("block", "call"), [(256, 1 << 19), (256, 0), (4, 1 << 19), (4, 24 * 12), (3, 0)])
def test_it_is_softmax_over_what_a_token_sees(
    monkeypatch: pytest.MonkeyPatch, window: int | None, block: int, call: int
) -> None:
    """Whether pieces share a product, stand alone or are cut: outputs and gradients."""
    monkeypatch.setattr(module, "_BLOCK", block)
    monkeypatch.setattr(module, "_CALL", call)
    qkv = tensors()
    found, expected = attend(TREE, window, *qkv), dense(TREE, window, *qkv)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    weights = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).view(expected.shape)
    ours, theirs = (torch.autograd.grad((weights * out).sum(), qkv) for out in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


def test_a_product_is_shared_where_its_padding_is_cheaper_than_a_call() -> None:
    pieces = (Piece(Span(0, 10)), Piece(Span(10, 9)), Piece(Span(19, 1)))
    for call, sizes in ((0, [1, 1, 1]), (18, [1, 1, 1]), (19, [2, 1]), (98, [2, 1]), (99, [3])):  # 10·10 − 9·9 = 19
        assert [len(product.pieces) for product in module._plan(pieces, None, call)] == sizes  # pyright: ignore[reportPrivateUsage]


def test_bfloat16_is_rounded_at_its_ends_alone() -> None:
    rounded = tensors(torch.bfloat16)
    found = attend(TREE, None, *rounded)
    exact = dense(TREE, None, *(x.double() for x in rounded))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, exact.bfloat16(), atol=0, rtol=2**-8)  # the last bit
    with torch.autocast("cpu", dtype=torch.bfloat16):
        whole = attend(TREE, None, *tensors(torch.float32))
    torch.testing.assert_close(whole, dense(TREE, None, *tensors(torch.float32)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "setting", [{"softcap": 5.0}, {"s_aux": torch.zeros(4)}, {"indices": torch.zeros(1)}, {"dropout": 0.1}]
)
def test_an_attention_of_another_kind_is_refused(setting: dict[str, Any]) -> None:
    query, key, value = (x[None] for x in tensors())
    for mask in (Packing(TREE).as_mask(), None):
        with pytest.raises(ValueError, match=f"no packed attention with {next(iter(setting))}"):
            module._attend(SimpleNamespace(), query, key, value, mask, **setting)  # pyright: ignore[reportPrivateUsage]


def test_flat_rows_without_padding_stay_as_they_are() -> None:
    """They need no mask, and PyTorch's attention without one is faster."""
    device = torch.device("cpu")
    for longer, packed in ((0, False), (2, False), (3, True)):  # 1 − 22/24 and 1 − 23/26 of padding
        batch = Batch(([1] * 5, [1] * 5), (([2] * 5,), ([2] * (5 + longer),)), (0, 1))
        rows = lay_out(batch, "tree", pad_id=0, device=device, packed=True)
        assert (rows.pieces is not None) == packed
    branched = Batch(([1] * 5,), (([2] * 5, [2] * 5),), (0,))
    assert lay_out(branched, "tree", pad_id=0, device=device, packed=True).pieces is not None


def test_a_loaded_model_computes_packed_rows(tiny_policy: Policy) -> None:
    """With its layers computed again in the backward pass as well; nothing is padded."""
    generator = torch.Generator().manual_seed(1)
    tokens = [torch.randint(6, 90, (n,), generator=generator).tolist() for n in (9, 7, 12, 1, 5, 14, 3)]
    prompts, responses = (
        (tokens[0], tokens[3], tokens[5]),
        ((tokens[1], tokens[2]), (tokens[4],), (tokens[6], tokens[3])),
    )
    batch = Batch(prompts, responses, (0, 1, 2))
    gradients: list[list[Tensor]] = []
    assert tiny_policy.packed
    assert tiny_policy.forward.rows(batch).input_ids_RL.shape == (1, 8 + 8 + 13 + 1 + 5 + 13 + 4 + 2)
    for packed, again in ((False, False), (True, False), (True, True)):
        tiny_policy.packed = packed
        if again:
            tiny_policy.recompute_activations(["policy"])
        loss = tiny_policy.logprobs(batch).logp_PKT.square().sum()
        parameters = [*tiny_policy.parameters(["policy"]).values()]
        gradients.append([g for g in torch.autograd.grad(loss, parameters) if g.any()])
    for other in gradients[1:]:
        for one, two in zip(gradients[0], other, strict=True):
            torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)
