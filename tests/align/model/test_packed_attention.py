"""Attention over packed rows on a CPU against a softmax over the whole row with a dense mask, gradients included."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from align.model import packed_attention as module
from align.model.packed_attention import Piece, Span
from align.model.packing import Packing
from tests.align.model.dense_attention import TREE, dense, tensors


def attend(pieces: tuple[Piece, ...], window: int | None, *qkv: Tensor) -> Tensor:
    query, key, value = (x[None] for x in qkv)
    return Packing(pieces, window).attend(query, key, value, 0.3)[0].transpose(0, 1)


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


def test_a_product_is_shared_where_its_padding_is_cheaper_than_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = (Piece(Span(0, 10)), Piece(Span(10, 9)), Piece(Span(19, 1)))
    for call, sizes in ((0, [1, 1, 1]), (18, [1, 1, 1]), (19, [2, 1]), (98, [2, 1]), (99, [3])):  # 10·10 − 9·9 = 19
        monkeypatch.setattr(module, "_CALL", call)
        assert [len(product.pieces) for product in module.plan(pieces, None, 1)] == sizes


def test_bfloat16_is_rounded_at_its_ends_alone() -> None:
    rounded = tensors(torch.bfloat16)
    found = attend(TREE, None, *rounded)
    exact = dense(TREE, None, *(x.double() for x in rounded))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, exact.bfloat16(), atol=0, rtol=2**-8)  # the last bit
    with torch.autocast("cpu", dtype=torch.bfloat16):
        whole = attend(TREE, None, *tensors(torch.float32))
    torch.testing.assert_close(whole, dense(TREE, None, *tensors(torch.float32)), atol=1e-5, rtol=1e-5)
