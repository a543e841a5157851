"""Facts of an architecture, read from its configuration and its layers."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from align.model.architecture import (
    body,
    checkpoint_layers,
    decoder_layers,
    ignored_losses,
    max_positions,
    special_linear_layers,
)
from align.model.policy import Policy
from align.system.signals import Interrupted, StopRequest
from tests.align.model.test_tree_layout import uneven_batch


class Config(SimpleNamespace):
    """A text configuration with these fields."""

    def get_text_config(self) -> Any:
        return self


LONG = {"rope_type": "longrope"}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, None),
        ({"max_position_embeddings": 64}, 64),
        ({"max_position_embeddings": 64, "rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, 64),
        ({"max_position_embeddings": 64, "original_max_position_embeddings": 16}, 64),  # without longrope
        ({"max_position_embeddings": 64, "original_max_position_embeddings": 16, "rope_parameters": LONG}, 16),
        ({"max_position_embeddings": 64, "original_max_position_embeddings": 99, "rope_parameters": LONG}, 64),
        ({"original_max_position_embeddings": 16, "rope_parameters": LONG}, 16),
        ({"max_position_embeddings": 64, "rope_parameters": LONG}, 64),
        ({"max_position_embeddings": 64, "rope_parameters": LONG | {"original_max_position_embeddings": 8}}, 8),
        (
            {
                "max_position_embeddings": 64,
                "rope_scaling": {"type": "longrope", "original_max_position_embeddings": 8},
            },
            8,
        ),
        (
            {  # each type of layer has its own
                "max_position_embeddings": 64,
                "rope_parameters": {
                    "full_attention": LONG | {"original_max_position_embeddings": 32},
                    "sliding_attention": LONG | {"original_max_position_embeddings": 16},
                },
            },
            16,
        ),
    ],
)
def test_longest_sequence(config: dict[str, Any], expected: int | None) -> None:
    assert max_positions(Config(**config)) == expected


@pytest.mark.parametrize(
    ("config", "count"),
    [
        ({}, 0),
        ({"output_router_logits": True, "router_aux_loss_coef": 0.01}, 1),
        ({"output_router_logits": True, "router_aux_loss_coef": 0.0}, 0),
        ({"output_router_logits": True}, 0),
        ({"output_router_logits": False, "router_aux_loss_coef": 0.01}, 0),
    ],
)
def test_losses_that_are_not_added(config: dict[str, Any], count: int) -> None:
    found = ignored_losses(Config(**config))
    assert len(found) == count
    assert all(sentence.startswith("output_router_logits=true in the model's configuration") for sentence in found)


class Own(nn.Linear):
    """A product by a forward pass of its own."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(input, self.weight)


class Tuple(nn.Linear):
    def forward(self, input: torch.Tensor) -> Any:
        return super().forward(input), 0


class Grouped(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input)[..., :1]


class Broken(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        raise ValueError(input.shape)


def network(model_type: str) -> Any:
    model = nn.ModuleDict(
        {
            "plain": nn.Linear(3, 2),
            "own": Own(3, 2, bias=False),
            "tuple": Tuple(3, 2),
            "grouped": Grouped(3, 2),
            "broken": Broken(3, 2),
            "mixer": nn.ModuleDict({"in_proj": nn.Linear(3, 2), "out_proj": nn.Linear(2, 3)}),
            "embedding": nn.Embedding(4, 3),
        }
    )
    model.config = SimpleNamespace(model_type=model_type)  # pyright: ignore[reportArgumentType]
    return model


@pytest.mark.parametrize("model_type", ["falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h", "llama"])
def test_linear_layers_on_which_lora_would_fail(model_type: str) -> None:
    read_by_a_kernel = [] if model_type == "llama" else ["mixer.out_proj"]
    assert special_linear_layers(network(model_type)) == ["tuple", "grouped", "broken", *read_by_a_kernel]


def test_a_layer_is_computed_again_once(tiny_policy: Policy) -> None:
    model: Any = tiny_policy.model
    checkpoint_layers(model)
    before = [layer.forward for layer in model.model.layers]
    checkpoint_layers(model)
    assert all(layer.forward is forward for layer, forward in zip(model.model.layers, before, strict=True))
    assert all(forward.keywords == {"use_reentrant": False} for forward in before)


def test_the_body_is_the_model_without_its_head(tiny_policy: Policy) -> None:
    model: Any = tiny_policy.model
    assert body(model) is model.model


@pytest.mark.parametrize("asked", ["forward 0", "forward 1", "backward 1"])
def test_a_signal_ends_a_pass_between_two_layers(tiny_policy: Policy, asked: str) -> None:
    """Layers are computed in the order 0, 1 and their gradients in the order 1, 0."""
    begun: list[str] = []

    def begin(name: str) -> None:
        begun.append(name)
        if name == asked:
            signal.raise_signal(signal.SIGINT)

    for number, layer in enumerate(decoder_layers(tiny_policy.model)):
        layer.register_forward_pre_hook(lambda *_, number=number: begin(f"forward {number}"))
        layer.register_full_backward_pre_hook(lambda *_, number=number: begin(f"backward {number}"))
    with StopRequest().listening(), pytest.raises(Interrupted):
        tiny_policy.logprobs(uneven_batch()).logp_PKT.sum().backward()
    assert begun == (["forward 0"] if asked == "forward 0" else ["forward 0", "forward 1", "backward 1"])
