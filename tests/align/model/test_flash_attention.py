"""FlashAttention over packed rows: what it is given, on a CPU; its kernels, where there is a GPU."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from align.model import flash_attention as module
from align.model.batch import Batch
from align.model.packed_attention import Piece, Span
from align.model.policy import Policy
from align.model.tree_layout import lay_out
from tests.align.model.dense_attention import TOKENS, TREE, dense, gradients_padded_and_packed, tensors

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_starts: Tensor,
    key_starts: Tensor,
    longest_query: int,
    longest_key: int,
    dropout: float,
    causal: bool,
    debug: bool,
    *,
    scale: float,
    window_size_left: int,
    window_size_right: int,
) -> tuple[Tensor, ...]:
    """FlashAttention's definition (2.1 and later): sequence by sequence, the mask ends at the last query and key."""
    assert (dropout, debug, window_size_right) == (0.0, False, 0)
    assert causal == (window_size_left < 0)
    groups = query.shape[1] // key.shape[1]
    out: list[Tensor] = []
    for piece in range(len(query_starts) - 1):
        q = query[query_starts[piece] : query_starts[piece + 1]]
        k, v = (x[key_starts[piece] : key_starts[piece + 1]].repeat_interleave(groups, 1) for x in (key, value))
        assert len(q) <= longest_query
        assert len(k) <= longest_key
        back = torch.arange(len(q))[:, None] + len(k) - len(q) - torch.arange(len(k))[None, :]
        hidden = (back < 0) | ((back > window_size_left) & (window_size_left >= 0))
        scores = torch.einsum("qhd,khd->hqk", q, k) * scale
        out.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -math.inf).softmax(-1), v))
    return torch.cat(out), *(torch.zeros(1) for _ in range(4))


@pytest.mark.parametrize("window", [None, 1, 3, 7])
def test_it_is_softmax_over_what_a_token_sees(monkeypatch: pytest.MonkeyPatch, window: int | None) -> None:
    monkeypatch.setattr(torch.ops.aten, "_flash_attention_forward", forward)
    monkeypatch.setattr(module, "_require_right", lambda *_: None)
    query, key, value = (x.detach() for x in tensors())
    of = module.sequences(TREE, window, torch.device("cpu"))
    found = module.attend(query[None], key[None], value[None], 0.3, of)[0].transpose(0, 1)
    torch.testing.assert_close(found, dense(TREE, window, query, key, value), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_of_keys_that_several_see_are_added(dtype: torch.dtype) -> None:
    """On a GPU they are added in float32; on a CPU, where this is never used, each sum in bfloat16 is rounded."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    of = module.sequences(TREE, None, device)
    rows = torch.randn(TOKENS, 2, 3, device=device).to(dtype)
    for gradient in (torch.ones_like(module._keys(rows, of)), torch.randn_like(module._keys(rows, of))):  # pyright: ignore[reportPrivateUsage]
        exact = rows.double().requires_grad_()
        (expected,) = torch.autograd.grad(module._keys(exact, of), exact, gradient.double())  # pyright: ignore[reportPrivateUsage]
        found = module._add_keys(rows, gradient, of)  # pyright: ignore[reportPrivateUsage]
        assert found.dtype == dtype
        rounded = 2**-6 if device.type == "cpu" else 0.0
        near = {"atol": rounded, "rtol": 2**-8} if dtype == torch.bfloat16 else {"atol": 1e-6, "rtol": 1e-6}
        torch.testing.assert_close(found.double(), expected, **near)


def test_rows_without_branches_are_their_own_keys() -> None:
    of = module.sequences((Piece(Span(0, 5)), Piece(Span(5, 2))), None, torch.device("cpu"))
    assert of.key_index is None
    assert of.query_starts.tolist() == of.key_starts.tolist() == [0, 5, 7]


def test_rows_on_a_gpu_have_a_multiple_of_64_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Padding is a piece of its own, and no position is beyond those of the rows."""
    monkeypatch.setattr("align.model.tree_layout.Rows.to", lambda rows, _device: rows)
    batch = Batch(([1] * 5,), (([2] * 5, [3] * 4),), (0,))
    rows = lay_out(batch, "tree", pad_id=9, device=torch.device("cuda"), packed=True)
    assert rows.input_ids_RL.shape == (1, 64)
    assert rows.pieces is not None
    assert rows.pieces[-1] == Piece(Span(15, 49))
    assert (rows.input_ids_RL[0, 15:] == 9).all()
    assert int(rows.position_ids_RL.max()) == 9


@GPU
@pytest.mark.parametrize("window", [None, 2, 3, 40])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("heads", "shared", "width"), [(4, 2, 64), (9, 3, 64), (4, 4, 16), (8, 1, 128), (2, 1, 256)])
def test_kernels(window: int | None, dtype: torch.dtype, heads: int, shared: int, width: int) -> None:
    """Of rows of several lengths, with their gradients, against the dense attention of the same numbers in float64."""
    device = torch.device("cuda")
    generator = torch.Generator().manual_seed(0)
    of = module.sequences(TREE, window, device)
    qkv = [torch.randn(1, n, TOKENS, width, generator=generator).to(dtype) for n in (heads, shared, shared)]
    ours: Any = [x.to(device).requires_grad_() for x in qkv]
    exact = [x[0].double().requires_grad_() for x in qkv]
    found = module.attend(ours[0], ours[1], ours[2], 0.3, of)[0].transpose(0, 1)
    expected = dense(TREE, window, exact[0], exact[1], exact[2])
    weights = torch.randn(expected.shape, generator=generator)
    results = [found, *torch.autograd.grad((found * weights.to(device)).sum(), ours)]
    oracle = [expected, *torch.autograd.grad((expected * weights).sum(), exact)]
    for one, other in zip(results, oracle, strict=True):
        assert ((one.double().cpu() - other).norm() / other.norm()).item() < 0.02


@GPU
def test_a_model_on_a_gpu_computes_packed_rows(tiny_model: Path) -> None:
    """As padded rows with a mask do, gradients included, also with layers that are computed again."""
    assert not Policy.load(tiny_model, dtype="float32").packed  # FlashAttention has no kernels for it
    policy = Policy.load(tiny_model, dtype="bfloat16")
    assert policy.device.type == "cuda"
    assert policy.packed
    generator = torch.Generator().manual_seed(1)
    tokens = [torch.randint(6, 90, (n,), generator=generator).tolist() for n in (9, 70, 12, 1, 50, 14, 3)]
    batch = Batch((tokens[0], tokens[1]), ((tokens[2], tokens[3]), (tokens[4], tokens[5], tokens[6])), (0, 1))
    padded, *others = gradients_padded_and_packed(policy, batch)
    for other in others:
        for one, two in zip(padded, other, strict=True):
            assert ((one - two).norm() / one.norm()).item() < 0.05
