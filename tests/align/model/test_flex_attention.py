"""FlexAttention over packed rows: its mask and its use on a CPU, its kernels where there is a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from align.model import flex_attention as module
from align.model.batch import Batch
from align.model.packed_attention import Piece, Span
from align.model.policy import Policy
from align.model.tree_layout import lay_out
from tests.align.model.dense_attention import TOKENS, TREE, dense, tensors

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("window", [None, 1, 3, 7])
def test_it_is_softmax_over_what_a_token_sees(monkeypatch: pytest.MonkeyPatch, window: int | None) -> None:
    """As PyTorch computes it without kernels."""
    from torch.nn.attention.flex_attention import flex_attention

    monkeypatch.setattr(module, "_compiled", lambda: flex_attention)
    query, key, value = (x.detach() for x in tensors())
    blocks = module.block_mask(TREE, window, torch.device("cpu"))
    found = module.attend(query[None], key[None], value[None], 0.3, blocks)[0].transpose(0, 1)
    torch.testing.assert_close(found, dense(TREE, window, query, key, value), atol=1e-12, rtol=1e-12)


def test_blocks_that_nothing_of_them_sees_are_passed_over() -> None:
    """Of two trees of a block per piece each block of queries sees its own, and a branch its prompt."""
    size = module.BLOCK
    pieces = tuple(
        Piece(Span(i * size, size), (Span(before * size, size),) if before is not None else ())
        for i, before in enumerate((None, 0, 0, None, 3))
    )
    blocks: Any = module.block_mask(pieces, None, torch.device("cpu"))
    assert blocks.kv_num_blocks.flatten().tolist() == [1, 1, 1, 1, 1]  # the block itself, of which half is seen
    assert blocks.full_kv_num_blocks.flatten().tolist() == [0, 1, 1, 0, 1]
    assert blocks.full_kv_indices[0, 0, :, 0].tolist()[1:3] == [0, 0]
    assert blocks.full_kv_indices[0, 0, 4, 0] == 3


def test_rows_on_a_gpu_have_whole_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Padding is a piece of its own, and no position is beyond those of the rows."""
    monkeypatch.setattr("align.model.tree_layout.Rows.to", lambda rows, _device: rows)
    batch = Batch(([1] * 5,), (([2] * 5, [3] * 4),), (0,))
    rows = lay_out(batch, "tree", pad_id=9, device=torch.device("cuda"), packed=True)
    assert rows.input_ids_RL.shape == (1, module.BLOCK)
    assert rows.pieces is not None
    assert rows.pieces[-1] == Piece(Span(15, module.BLOCK - 15))
    assert (rows.input_ids_RL[0, 15:] == 9).all()
    assert int(rows.position_ids_RL.max()) == 9


@GPU
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("window", [None, 3, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("heads", "shared", "width"), [(4, 2, 64), (9, 3, 64), (4, 4, 16), (8, 1, 128)])
def test_kernels(window: int | None, dtype: torch.dtype, heads: int, shared: int, width: int) -> None:
    """Of rows of several lengths, with their gradients, against the same attention without kernels in float32."""
    from torch.nn.attention.flex_attention import flex_attention

    device = torch.device("cuda")
    generator = torch.Generator(device).manual_seed(0)
    limit = 1e-3 if dtype == torch.float32 else 2e-2
    for copies in (1, 7, 30):
        pieces = [
            Piece(Span(copy * TOKENS + own.start, own.length), tuple(Span(copy * TOKENS + a, n) for a, n in before))
            for copy in range(copies)
            for own, before in TREE
        ]
        size = copies * TOKENS
        pieces.append(Piece(Span(size, -size % module.BLOCK)))
        blocks = module.block_mask(pieces, window, device)
        shapes = [(1, n, blocks.shape[-1], width) for n in (heads, shared, shared)]
        qkv = [torch.randn(s, generator=generator, device=device).to(dtype).requires_grad_() for s in shapes]
        exact = [x.detach().float().requires_grad_() for x in qkv]
        found = module.attend(qkv[0], qkv[1], qkv[2], 0.3, blocks)
        q, k, v = exact
        plain: Any = flex_attention(q, k, v, block_mask=blocks, scale=0.3, enable_gqa=True)
        expected = plain.transpose(1, 2)
        weights = torch.randn(found.shape, generator=generator, device=device)
        ours, theirs = (
            [out, *torch.autograd.grad((out.float() * weights).sum(), of)]
            for out, of in ((found, qkv), (expected, exact))
        )
        for one, other in zip(ours, theirs, strict=True):
            assert ((one.float() - other).norm() / other.norm()).item() < limit


@GPU
def test_a_model_on_a_gpu_computes_packed_rows(tiny_policy: Policy) -> None:
    """As padded rows with a dense mask do, gradients included."""
    assert tiny_policy.device.type == "cuda"
    assert tiny_policy.packed
    generator = torch.Generator().manual_seed(1)
    tokens = [torch.randint(6, 90, (n,), generator=generator).tolist() for n in (9, 70, 12, 1, 50, 14, 3)]
    batch = Batch((tokens[0], tokens[1]), ((tokens[2], tokens[3]), (tokens[4], tokens[5], tokens[6])), (0, 1))
    gradients: list[list[torch.Tensor]] = []
    for packed in (False, True):
        tiny_policy.packed = packed
        loss = tiny_policy.logprobs(batch).logp_PKT.square().sum()
        parameters = [*tiny_policy.parameters(["policy"]).values()]
        gradients.append([g for g in torch.autograd.grad(loss, parameters) if g.any()])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-3)
