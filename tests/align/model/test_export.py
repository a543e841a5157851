"""Files written for others: every role with its tokenizer, and one merged model or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from align.errors import UserError
from align.model.policy import Policy
from align.settings.adapter import Adapter

IDS = torch.tensor([[7, 8, 9, 12, 13, 2]])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


@pytest.mark.parametrize(
    ("adapter", "start", "written"),
    [
        (Adapter(r=2), False, {"", "reward", "value"}),  # the reference is the base itself
        (Adapter(r=4), True, {"", "reference", "reward", "value"}),
        (None, False, {"", "reference", "reward", "value"}),
    ],
    ids=["new adapter", "continued adapter", "full"],
)
def test_every_role_with_weights_of_its_own_is_written_with_the_tokenizer(
    adapter: Adapter | None, start: bool, written: set[str], tiny_policy: Policy, tiny_model: Path, tmp_path: Path
) -> None:
    tiny_policy.save(tmp_path / "start")
    policy = Policy.load(tiny_model, adapter=adapter, start=tmp_path / "start" if start else None)
    policy.require(["reference", "reward", "value"])
    policy.save(tmp_path / "end")
    weights = {"adapter_model.safetensors", "model.safetensors"}
    found = {
        str(file.parent.relative_to(tmp_path / "end")) for name in weights for file in tmp_path.glob(f"end/**/{name}")
    }
    assert found == {role or "." for role in written}
    for role in written:
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "end" / role)
        assert (tokenizer.pad_token, tokenizer.chat_template) == ("<|pad|>", policy.tokenizer.chat_template)


@pytest.mark.parametrize("adapter", [Adapter(r=2), None])
def test_the_policy_alone_is_merged(adapter: Adapter | None, tiny_model: Path, tmp_path: Path) -> None:
    policy = Policy.load(tiny_model, adapter=adapter)
    policy.require(["reference"])
    refused = pytest.raises(UserError, match=r'the policy; call it outside of `with policy\.use\("reference"\)`')
    with policy.use("reference"), refused:
        policy.merge_and_export(tmp_path)
    assert not list(tmp_path.iterdir())
    expected = logits(policy.model)
    assert policy.merge_and_export(tmp_path) < 1e-5
    assert torch.equal(logits(policy.model), expected)
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), expected, atol=1e-5, rtol=1e-5)
    assert AutoTokenizer.from_pretrained(tmp_path).pad_token == "<|pad|>"


def test_without_an_adapter_the_model_is_written_as_it_is(tiny_model: Path, tmp_path: Path) -> None:
    policy = Policy.load(tiny_model, adapter=None)
    assert policy.merge_and_export(tmp_path) == 0
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(policy.model))
    assert AutoTokenizer.from_pretrained(tmp_path).pad_token == "<|pad|>"


@pytest.mark.parametrize(("dtype", "allowed"), [("float32", 1e-4), ("bfloat16", 5e-2)])
@pytest.mark.parametrize("share", [0.5, 1.5])
def test_a_merged_model_that_differs_by_more_than_rounding_is_not_written(
    share: float, dtype: str, allowed: float, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output head of the merged model is scaled by 1 + ε, and so are the logits; a new adapter changes nothing."""
    policy = Policy.load(tiny_model, dtype=dtype)
    plain = LoraModel.merge_and_unload

    def scaled(self: Any, *arguments: Any, **names: Any) -> Any:
        merged: Any = plain(self, *arguments, **names)
        merged.lm_head.register_forward_hook(lambda _, __, logits: logits.float() * (1 + share * allowed))
        return merged

    monkeypatch.setattr(LoraModel, "merge_and_unload", scaled)
    if share < 1:
        ids = torch.randint(0, 262, (2, 16), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            largest = policy.model(ids).logits.abs().max().item()
        assert policy.merge_and_export(tmp_path) == pytest.approx(share * allowed * largest, rel=0.02)
        assert (tmp_path / "model.safetensors").is_file()
        return
    with pytest.raises(
        UserError, match=r"merged and adapter logits differ by .*load the base with model\.dtype=float32"
    ):
        policy.merge_and_export(tmp_path)
    assert not list(tmp_path.iterdir())
