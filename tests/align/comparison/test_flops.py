"""Operations counted by hand."""

from __future__ import annotations

from torch import nn, randn
from torch.utils.flop_counter import FlopCounterMode

from align.comparison.flops import estimate


def test_tokens_times_parameters() -> None:
    assert estimate(10, trained=3, drawn=5, asked=7, adapters=False) == 10 * (6 * 3 + 2 * (5 + 7))
    assert estimate(10, trained=3, drawn=5, asked=7, adapters=True) == 10 * (4 * 3 + 2 * (5 + 7))


def test_pytorch_counts_as_much_for_linear_layers() -> None:
    """Three layers of 8 × 8 and five tokens; the first layer's input is no activation, so it needs no gradient."""
    layers = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(3)))
    for frozen in (False, True):
        x = randn(5, 8, requires_grad=True)
        layers.requires_grad_(not frozen)
        with FlopCounterMode(display=False) as counter:
            layers(x).sum().backward()
        assert counter.get_total_flops() == estimate(3 * 64, trained=5, drawn=0, asked=0, adapters=frozen)
