"""The fingerprint of weights is that of their bytes."""

from __future__ import annotations

import hashlib

import pytest
import torch

from align.model.fingerprint import weights_fingerprint
from align.model.full_copies import FullCopies
from align.model.policy import Policy


def of(model: torch.nn.Module) -> str:
    return weights_fingerprint(Policy(FullCopies(model), None))  # pyright: ignore[reportArgumentType]


def test_it_is_the_sha256_of_names_types_shapes_and_bytes() -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.constant_(model.weight, 1.0)
    assert of(model) == hashlib.sha256(b"weight torch.float32 (1, 2)" + bytes.fromhex("0000803f" * 2)).hexdigest()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_a_sum_does_not_see(dtype: torch.dtype) -> None:
    """Two weights exchanged, a zero that changes its sign, a small change beside a large weight."""
    model = torch.nn.Linear(4, 1, bias=False).to(dtype)
    seen: set[str] = set()
    for values in ([1e4, 2, 0.0, 1e-3], [2, 1e4, 0.0, 1e-3], [1e4, 2, -0.0, 1e-3], [1e4, 2, 0.0, 1.01e-3]):
        with torch.no_grad():
            model.weight.copy_(torch.tensor([values]))
        seen.add(of(model))
        assert of(model) in seen
    assert len(seen) == 4


def test_buffers_that_are_saved_count() -> None:
    """DeepSeek's correction of the router's scores is one."""
    model = torch.nn.BatchNorm1d(2)
    before = of(model)
    assert isinstance(model.running_mean, torch.Tensor)
    model.running_mean[0] = 1.0
    assert of(model) != before


def test_every_weight_of_every_role_counts(tiny_policy: Policy) -> None:
    """The base, the adapter of each role, and their names: one number changed in any of them."""
    tiny_policy.require(["value"])
    seen = {weights_fingerprint(tiny_policy)}
    with tiny_policy.use("reference"):
        assert {weights_fingerprint(tiny_policy)} == seen
    base = next(p for name, p in tiny_policy.model.named_parameters() if ".lora_" not in name)
    adapters = [list(tiny_policy.roles.weights(role).values()) for role in ("policy", "value")]
    for parameter in (base, *(own[i] for own in adapters for i in (0, -1))):
        with torch.no_grad():
            parameter.view(-1)[-1] += 0.5
        seen.add(weights_fingerprint(tiny_policy))
    assert len(seen) == 6


def test_the_name_and_the_shape_count() -> None:
    one, two, three = torch.nn.Linear(4, 1, bias=False), torch.nn.Linear(2, 2, bias=False), torch.nn.Embedding(1, 4)
    named = torch.nn.Sequential(torch.nn.Linear(4, 1, bias=False))
    for model in (one, two, three, named):
        torch.nn.init.ones_(next(model.parameters()))
    assert of(one) == of(three)
    assert len({of(one), of(two), of(named)}) == 3
