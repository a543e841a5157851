"""New adapters: which layers get one, and which targets are refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import nn

from align.errors import UserError
from align.model.adapters import lora_config, without_direction
from align.model.policy import Policy
from align.settings.adapter import Adapter
from tests.align.model.architectures import tiny_config, tiny_network
from tests.align.model.peft_adapters import ALL, BATCH, logits, make_adapter, plain_logits


class TestNewAdapters:
    @pytest.mark.parametrize(
        ("targets", "words"),
        [
            (("no_such_layer",), "no_such_layer"),
            (("q_proj", "k_prj"), 'k_prj matches nothing.*Did you mean "k_proj"'),
            (("q_proj", "input_layernorm"), "input_layernorm"),
            (("q_proj", "norm", "k_prj"), "norm"),
            ("q_projection", "q_projection"),
            (("lm_head",), "output head"),
            (("q_proj", "lm_head"), "output head"),
        ],
    )
    def test_a_target_without_an_adapter_is_named(self, targets: Any, words: str, tiny_model: Path) -> None:
        with pytest.raises(UserError, match=rf"adapter\.targets.*{words}"):
            Policy.load(tiny_model, adapter=Adapter(targets=targets))

    @pytest.mark.parametrize("targets", [("embed_tokens",), ("q_proj", "embed_tokens"), r".*(embed_tokens|q_proj)"])
    def test_the_embedding_is_trained(self, targets: Any, tiny_model: Path) -> None:
        """2 · r · … weights: r·V + D·r for the embedding, as LoRA's equation has them."""
        policy = Policy.load(tiny_model, adapter=Adapter(r=4, targets=targets))
        weights = policy.roles.weights("policy")
        table: Any = policy.model.get_input_embeddings().weight
        vocabulary, width = table.shape
        embedding = {name: p for name, p in weights.items() if "embed_tokens" in name}
        assert sum(p.numel() for p in embedding.values()) == 4 * (vocabulary + width)
        policy.logprobs(BATCH).logp_PKT.sum().backward()
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in embedding.values())

    def test_a_layer_without_direction_gets_no_dora(self, tiny_model: Path, tmp_path: Path) -> None:
        """‖W‖ = 0 in a row: DoRA's m·W/‖W‖ is 0/0 there. Plain LoRA needs no exception."""
        policy = Policy.load(tiny_model, adapter=None)
        with torch.no_grad():
            layer: Any = policy.model.get_submodule("model.layers.1.self_attn.k_proj")
            layer.weight[3] = 0
        policy.save(tmp_path / "base")
        base = tmp_path / "base"
        policy = Policy.load(base, adapter=Adapter(r=4, dora=True))
        assert any("no adapter on model.layers.1.self_attn.k_proj" in note for note in policy.notes)
        assert not any("layers.1.self_attn.k_proj" in name for name in policy.roles.weights("policy"))
        assert any("layers.0.self_attn.k_proj" in name for name in policy.roles.weights("policy"))
        torch.testing.assert_close(logits(policy), logits(policy, "reference"))
        policy.save(tmp_path / "end")
        torch.testing.assert_close(plain_logits(base, tmp_path / "end"), logits(policy))
        assert not any("no adapter on" in note for note in Policy.load(base, adapter=Adapter(r=4)).notes)
        make_adapter(tiny_model, tmp_path / "start", use_dora=True)
        with pytest.raises(UserError, match=r"layers\.1\.self_attn\.k_proj .*DoRA divides"):
            Policy.load(base, start=tmp_path / "start")

    def test_a_target_is_a_whole_name(self, tiny_model: Path) -> None:
        with pytest.raises(UserError, match=r"adapter\.targets.*proj matches nothing.*down_proj, gate_proj, k_proj"):
            Policy.load(tiny_model, adapter=Adapter(targets=("q_proj", "proj")))
        with pytest.raises(UserError, match=r"aa, bb match nothing"):
            Policy.load(tiny_model, adapter=Adapter(targets=("bb", "q_proj", "aa")))

    def test_layers_that_are_no_product_get_no_adapter(self, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """With DoRA too, which leaves out layers of its own."""
        special = "model.layers.0.mlp.up_proj"
        monkeypatch.setattr("align.model.adapters.special_linear_layers", lambda _: [special])
        for dora in (False, True):
            names = {
                name.partition(".lora_")[0].removeprefix("base_model.model.")
                for name in Policy.load(tiny_model, adapter=Adapter(r=2, dora=dora)).roles.weights("policy")
            }
            expected = {
                f"model.layers.{i}.{part}.{name}" for i in (0, 1) for part in ("self_attn", "mlp") for name in ALL
            }
            real = {n for n in expected if ("mlp" in n) == n.endswith(("gate_proj", "up_proj", "down_proj"))}
            assert names == real - {special}


def test_the_configuration_of_a_new_adapter() -> None:
    """GPT-2's linear layers are transposed; the settings given are not changed by the model they are for."""
    adapter = Adapter(r=3, alpha=7, dropout=0.25, rslora=True)
    for name, transposed in (("gpt2", True), ("llama", False), ("gpt_neox", False)):
        config = lora_config(tiny_network(tiny_config(name)), adapter)
        assert config.fan_in_fan_out is transposed
        assert (config.r, config.lora_alpha, config.lora_dropout, config.use_rslora) == (3, 7, 0.25, True)
        assert not config.exclude_modules
    assert "special" in (lora_config(SpecialNetwork(), adapter).exclude_modules or ())


class SpecialNetwork(nn.Module):
    """One layer that returns a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(model_type="llama")
        self.plain, self.special = nn.Linear(2, 2), Pair(2, 2)


class Pair(nn.Linear):
    def forward(self, input: torch.Tensor) -> Any:
        return input, input


class Conv1D(nn.Module):
    """As in GPT-2: y = x·W, a column for each output."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)


def test_outputs_of_zero_weights_are_found_in_every_kind_of_layer() -> None:
    """By hand: an output is a row of a linear layer, a column of a Conv1D and of an embedding."""
    row = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    column = row.T.contiguous()
    model = nn.ModuleDict(
        {
            "linear_row": nn.Linear(2, 2),
            "linear_column": nn.Linear(2, 2),
            "embedding_row": nn.Embedding(2, 2),
            "embedding_column": nn.Embedding(2, 2),
            "conv_row": Conv1D(row.clone()),
            "conv_column": Conv1D(column.clone()),
            "norm": nn.LayerNorm(2),
        }
    )
    with torch.no_grad():
        for name, module in model.items():
            module.weight.copy_(torch.zeros(2) if name == "norm" else row if "row" in name else column)  # pyright: ignore
    zero = ["linear_row", "embedding_column", "conv_column"]
    assert without_direction(model, LoraConfig(target_modules="all-linear")) == zero
    assert without_direction(model, LoraConfig(target_modules=["linear_row", "conv_row", "norm"])) == zero[:1]
    assert without_direction(model, LoraConfig(target_modules=["embedding_column"])) == zero[1:2]
