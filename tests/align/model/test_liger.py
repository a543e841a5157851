"""Liger's kernels in a model on a GPU."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from align.model.liger import use_liger
from align.model.policy import Policy


class _Stub:
    """Stands in for Liger: norms double their output, and the rotary function of the module is another."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def apply(self, *, model: Any, **without: bool) -> None:
        assert without == {"cross_entropy": False, "fused_linear_cross_entropy": False}
        norm = model.model.norm
        plain = type(norm).forward
        norm.__dict__["forward"] = lambda x: plain(norm, x) * self.factor
        code = sys.modules[type(model).__module__]
        code.apply_rotary_pos_emb = _on_gpu  # type: ignore[attr-defined]


def _on_gpu(*_: Any, **__: Any) -> Any:
    raise AssertionError("a model on a CPU must not come here")


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> _Stub:
    from transformers.models.llama import modeling_llama

    rotate: Any = modeling_llama.apply_rotary_pos_emb
    plain = rotate.__wrapped__ if hasattr(rotate, "on_gpu") else rotate  # a model on a GPU has changed it
    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", plain)
    stub = _Stub(1.0)
    fake = SimpleNamespace(_apply_liger_kernel_to_instance=stub.apply)
    monkeypatch.setitem(sys.modules, "liger_kernel", SimpleNamespace(transformers=fake))
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", fake)
    return stub


def logits(network: Any) -> torch.Tensor:
    with torch.no_grad():
        return network(input_ids=torch.arange(3, 20, device=network.device)[None]).logits


@pytest.mark.usefixtures("stub")
def test_models_on_a_cpu_keep_their_own_functions(tiny_model: Path) -> None:
    """Liger changes a function of the module, which models on other devices share."""
    from transformers import AutoModelForCausalLM

    for _ in range(2):
        network: Any = AutoModelForCausalLM.from_pretrained(tiny_model)
        before = logits(network)
        assert use_liger(network) == "kernels: Liger's"
        assert "forward" in vars(network.model.norm)
        assert torch.equal(logits(network), before)
        code: Any = sys.modules[type(network).__module__]
        assert not hasattr(code.apply_rotary_pos_emb.__wrapped__, "on_gpu")  # one choice, not one in another
        with pytest.raises(AssertionError, match="must not come here"):
            code.apply_rotary_pos_emb(SimpleNamespace(is_cuda=True))


def test_kernels_that_give_other_logits_are_taken_back(stub: _Stub, tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    network: Any = AutoModelForCausalLM.from_pretrained(tiny_model)
    code: Any = sys.modules[type(network).__module__]
    before, function = logits(network), code.apply_rotary_pos_emb
    stub.factor = 1.01
    said = use_liger(network)
    assert said is not None
    assert said.startswith("kernels: not Liger's (logits differ by ")
    assert torch.equal(logits(network), before)
    assert code.apply_rotary_pos_emb is function
    assert "forward" not in vars(network.model.norm)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gradients_are_those_of_the_model(tiny_model: Path) -> None:
    """Of a model with Liger's kernels on a GPU against one on a CPU, which has none."""
    pytest.importorskip("liger_kernel")
    found: list[list[torch.Tensor]] = []
    for device in ("cuda", "cpu"):
        policy = Policy.load(str(tiny_model), adapter=None, device=device)
        assert ("kernels: Liger's" in policy.notes) == (device == "cuda")
        loss = policy.model(input_ids=torch.arange(3, 60, device=device)[None]).logits.square().mean()
        found.append([g.cpu() for g in torch.autograd.grad(loss, [*policy.parameters(["policy"]).values()])])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-3)
