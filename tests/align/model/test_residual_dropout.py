"""Residual dropout against a network written by hand, in which PyTorch's own dropout stands where it belongs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from align.errors import UserError
from align.model.policy import Policy
from align.model.residual_dropout import ResidualDropout, drop_residuals, dropout_rates
from align.settings.adapter import Adapter
from tests.align.model.architectures import tiny_config, tiny_network
from tests.align.model.test_tree_layout import uneven_batch


@pytest.mark.parametrize(
    ("layers", "top", "expected"),
    [(4, 0.3, [0.0, 0.1, 0.2, 0.3]), (1, 0.3, [0.0]), (2, 0.5, [0.0, 0.5])],
)
def test_rates_rise_from_the_bottom_to_the_top(layers: int, top: float, expected: list[float]) -> None:
    assert dropout_rates(layers, top) == pytest.approx(expected)


def test_a_layer_in_the_middle() -> None:
    assert dropout_rates(12, 0.3)[5] == pytest.approx(0.136364, abs=1e-6)


class Layer(nn.Module):
    """``h = x + c·looks(x)``, ``y = h + c·thinks(h)``; ``wide`` is a part that adds nothing."""

    scale = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.thinks, self.looks = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, None]:
        middle = hidden_states + self.scale * self.looks(self.wide(hidden_states).tanh())
        return middle + self.scale * self.thinks(middle), None


class Body(nn.Module):
    def __init__(self, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, 8)
        self.layers = nn.ModuleList(Layer() for _ in range(layers))

    def forward(self, input_ids: Tensor, **_: Any) -> Tensor:
        hidden = self.embedding(input_ids)
        for layer in self.layers:
            hidden, _ = layer(hidden)
        return hidden


class Network(nn.Module):
    config = SimpleNamespace(model_type="handmade")

    def __init__(self, layers: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.base_model = Body(layers)

    def get_input_embeddings(self) -> nn.Module:
        return self.base_model.embedding


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_it_drops_what_is_added_to_the_residual_stream(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layer by layer, and first what looks, then what thinks, whatever their order in the module."""
    monkeypatch.setattr(Layer, "scale", scale)
    network, ids = Network(), torch.tensor([[3, 1, 4, 1, 5]])
    plain = network.base_model(ids)
    drop_residuals(network, 0.3)
    assert torch.equal(network.base_model(ids), plain)  # it is off until a pass turns it on
    for module in network.modules():
        if isinstance(module, ResidualDropout):
            module.train()
    torch.manual_seed(5)
    found = network.base_model(ids)
    network.eval()
    torch.manual_seed(5)
    hidden = network.base_model.embedding(ids)
    for layer, rate in zip(network.base_model.layers, (0.0, 0.1, 0.2, 0.3), strict=True):
        assert isinstance(layer, Layer)
        hidden = hidden + scale * dropout(layer.looks(layer.wide(hidden).tanh()), rate)
        hidden = hidden + scale * dropout(layer.thinks(hidden), rate)
    torch.testing.assert_close(found, hidden)
    assert not torch.allclose(found, plain)


def test_a_second_call_sets_the_rate_anew() -> None:
    network = Network(2)
    drop_residuals(network, 0.3)
    drop_residuals(network, 0.1)
    assert [m.p for m in network.modules() if isinstance(m, ResidualDropout)] == [0.0, 0.0, 0.1, 0.1]


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "gemma2", "olmo2", "opt", "mixtral", "qwen3"])
def test_architectures_with_other_names_and_other_norms(name: str) -> None:
    """Parallel branches, norms behind the branches, a bare linear layer as MLP, experts."""
    network = tiny_network(tiny_config(name)).eval()
    drop_residuals(network, 0.5)
    assert sum(isinstance(module, ResidualDropout) for module in network.modules()) == 4
    assert not any(name.startswith("dropout_of") for name in network.state_dict())


@pytest.mark.parametrize("name", ["mamba", "bloom"])
def test_a_model_without_two_such_parts_is_refused_by_name(name: str) -> None:
    """One mixer for both; or branches that return the sum themselves."""
    with pytest.raises(UserError, match=rf"trainer\.residual_dropout: a layer of {name} models is not its input plus"):
        drop_residuals(tiny_network(tiny_config(name)).eval(), 0.5)


class TestPolicy:
    @pytest.fixture
    def policy(self, tiny_model: Path) -> Policy:
        policy = Policy.load(str(tiny_model), adapter=Adapter(r=2))
        policy.drop_residuals(("policy",), 0.5)
        return policy

    def test_only_passes_that_train_drop(self, policy: Policy, tiny_model: Path) -> None:
        batch, plain = uneven_batch(), Policy.load(str(tiny_model), adapter=Adapter(r=2))
        expected = plain.logprobs(batch).logp_PKT
        assert not torch.allclose(policy.logprobs(batch).logp_PKT, expected, atol=1e-3)
        with torch.no_grad():
            assert torch.equal(policy.logprobs(batch).logp_PKT, expected)
        with policy.use("reference"):
            assert torch.equal(policy.logprobs(batch).logp_PKT, expected)
        with policy.dropout(False):
            assert torch.equal(policy.logprobs(batch).logp_PKT, expected)

    def test_activations_computed_again_are_dropped_alike(self, policy: Policy) -> None:
        def gradients() -> list[Tensor]:
            torch.manual_seed(3)
            policy.logprobs(uneven_batch()).logp_PKT.sum().backward()
            found = [p.grad.clone() for p in policy.parameters(("policy",)).values() if p.grad is not None]
            for parameter in policy.parameters(("policy",)).values():
                parameter.grad = None
            return found

        expected = gradients()
        policy.recompute_activations(("policy",))
        again = gradients()
        assert len(again) == len(expected) > 0
        assert all(torch.equal(a, b) for a, b in zip(again, expected, strict=True))
