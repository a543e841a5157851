"""One function for plain LoRA: PEFT's own layer is the oracle, in value and gradients; everything else goes to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora import Linear as PeftLoraLinear
from torch import nn

from align.model.lora_linear import LoraLinear
from align.model.policy import Policy
from align.settings.adapter import Adapter

INPUTS, OUTPUTS, RANK = 12, 20, 3


def layer(kind: type[PeftLoraLinear], dtype: torch.dtype = torch.float32, *, bias: bool = True, **settings: Any) -> Any:
    """Return a layer with an adapter that changes something; those of both kinds have the same weights."""
    torch.manual_seed(0)
    base = nn.Linear(INPUTS, OUTPUTS, bias=bias).to(dtype).requires_grad_(False)
    config = LoraConfig(r=RANK, lora_alpha=7, **settings)
    made: Any = kind(base, "default", config=config, r=RANK, lora_alpha=7)
    made.lora_A.float()
    made.lora_B.float()
    nn.init.normal_(made.lora_B["default"].weight)
    return made


def results(made: Any, dtype: torch.dtype = torch.float32, *, shape: tuple[int, ...] = (2, 5)) -> list[torch.Tensor]:
    """Return output, and gradients of the input and of the adapter."""
    torch.manual_seed(1)
    x = torch.randn(*shape, INPUTS).to(dtype).requires_grad_()
    out = made(x)
    (out.float() ** 2).sum().backward()
    grads = [parameter.grad for parameter in made.parameters() if parameter.requires_grad]
    return [out.detach(), x.grad, *grads]  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7,), (2, 5), (2, 1, 3)])
def test_equals_peft(bias: bool, shape: tuple[int, ...]) -> None:
    ours = results(layer(LoraLinear, bias=bias), shape=shape)
    theirs = results(layer(PeftLoraLinear, bias=bias), shape=shape)
    assert len(ours) == 4
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6 * float(other.abs().max()))


def test_a_float32_adapter_on_a_bfloat16_base_under_autocast() -> None:
    """The update is made in bfloat16, as by PEFT's layer; its gradients arrive in float32."""
    exact = results(layer(PeftLoraLinear))
    with torch.autocast("cpu", torch.bfloat16):
        found = results(layer(LoraLinear, torch.bfloat16), torch.bfloat16)
    assert [tensor.dtype for tensor in found] == [torch.bfloat16, torch.bfloat16, torch.float32, torch.float32]
    for mine, other in zip(found, exact, strict=True):
        assert (mine.float() - other).abs().max() < 0.03 * other.abs().max()


def test_an_input_without_gradient_gets_none() -> None:
    made = layer(LoraLinear)
    made(torch.randn(4, INPUTS)).sum().backward()
    assert made.lora_A["default"].weight.grad is not None
    assert made.base_layer.weight.grad is None


def test_its_output_may_be_changed_in_place() -> None:
    made = layer(LoraLinear)
    out = made(torch.ones(2, 3, INPUTS))
    out.add_(1.0).sum().backward()
    assert made.lora_B["default"].weight.grad is not None


def plain(*_: Any) -> Any:
    raise AssertionError("the layer's own function was used")


@pytest.mark.parametrize("settings", [{"lora_dropout": 0.5}, {"use_dora": True}, {"lora_bias": True}], ids=str)
def test_what_peft_alone_can_do_is_left_to_it(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("align.model.lora_linear._Update.apply", plain)
    torch.manual_seed(2)
    made = layer(LoraLinear, **settings)
    assert made(torch.ones(2, INPUTS)).shape == (2, OUTPUTS)


@pytest.mark.parametrize("state", ["off", "merged", "autocast", "bfloat16 base"])
def test_other_states(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, x = layer(LoraLinear), torch.ones(2, INPUTS)
    expected = made(x)
    monkeypatch.setattr("align.model.lora_linear._Update.apply", plain)
    if state == "off":
        made.enable_adapters(False)
        torch.testing.assert_close(made(x), made.base_layer(x))
    elif state == "merged":
        made.merge()
        torch.testing.assert_close(made(x), expected)
    elif state == "bfloat16 base":  # the adapter computes in float32
        made.base_layer.bfloat16()
        torch.testing.assert_close(made(x.bfloat16()).float(), expected, rtol=0.03, atol=0.05)
    else:
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(made(x).float(), expected, rtol=0.03, atol=0.05)


def test_dropout_that_is_not_active_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = layer(LoraLinear, lora_dropout=0.5).eval()
    monkeypatch.setattr("align.model.lora_linear._Update.apply", plain)
    with pytest.raises(AssertionError, match="own function"):
        made(torch.ones(2, INPUTS))


def test_policies_have_it(tiny_model: Path) -> None:
    policy = Policy.load(tiny_model, adapter=Adapter(r=2))
    adapted = [module for module in policy.model.modules() if isinstance(module, PeftLoraLinear)]
    assert adapted
    assert all(isinstance(module, LoraLinear) for module in adapted)
