"""Packed rows in models of transformers: which rows are packed, and that a model computes with them the same."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from align.model import packing as module
from align.model.batch import Batch
from align.model.packing import Packing
from align.model.policy import Policy
from align.model.tree_layout import lay_out
from tests.align.model.dense_attention import TREE, gradients_padded_and_packed, tensors


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


@pytest.mark.skipif(torch.cuda.is_available(), reason="in float32, of which only a CPU has packed rows")
def test_a_loaded_model_computes_packed_rows(tiny_policy: Policy) -> None:
    """With its layers computed again in the backward pass as well; nothing is padded."""
    generator = torch.Generator().manual_seed(1)
    tokens = [torch.randint(6, 90, (n,), generator=generator).tolist() for n in (9, 7, 12, 1, 5, 14, 3)]
    prompts, responses = (
        (tokens[0], tokens[3], tokens[5]),
        ((tokens[1], tokens[2]), (tokens[4],), (tokens[6], tokens[3])),
    )
    batch = Batch(prompts, responses, (0, 1, 2))
    assert tiny_policy.packed
    assert tiny_policy.forward.rows(batch).input_ids_RL.shape == (1, 8 + 8 + 13 + 1 + 5 + 13 + 4 + 2)
    padded, *others = gradients_padded_and_packed(tiny_policy, batch)
    for other in others:
        for one, two in zip(padded, other, strict=True):
            torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)
