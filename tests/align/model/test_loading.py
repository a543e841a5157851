"""The errors of a model's files are one sentence each, and trained weights are float32."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PhiConfig, PhiForCausalLM

from align import Policy, Preferences, Trainer, TrainerConfig
from align.errors import UserError
from align.settings.adapter import Adapter
from align.training.optimizer import make_optimizer
from methods import DPO


def with_tensors(tiny_model: Path, folder: Path, **changed: Any) -> Path:
    """A copy of the model with some tensors multiplied, or left out if the factor is None."""
    shutil.copytree(tiny_model, folder)
    state = load_file(tiny_model / "model.safetensors")
    for name, factor in changed.items():
        tensor = state.pop(name)
        if factor is not None:
            tensor.view(-1)[3] *= factor
            state[name] = tensor
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


class TestFiles:
    @pytest.mark.parametrize("factor", [float("nan"), float("inf")])
    @pytest.mark.parametrize("adapter", [Adapter(), None], ids=["lora", "full"])
    @pytest.mark.parametrize("tensor", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight", "lm_head.weight"])
    def test_numbers_that_are_none(
        self, tensor: str, adapter: Adapter | None, factor: float, tiny_model: Path, tmp_path: Path
    ) -> None:
        model = with_tensors(tiny_model, tmp_path / "model", **{tensor: factor})
        with pytest.raises(UserError, match=rf"{model}: {tensor} has NaN or infinite numbers"):
            Policy.load(model, adapter=adapter)

    @pytest.mark.parametrize(("bias", "usable"), [(-torch.inf, True), (torch.inf, False), (torch.nan, False)])
    def test_rows_that_are_shut_out(self, bias: float, usable: bool, tiny_model: Path, tmp_path: Path) -> None:
        """A head's bias of −∞ beyond the tokenizer is a way to round up the vocabulary."""
        tokenizer = AutoTokenizer.from_pretrained(tiny_model)
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        network = PhiForCausalLM(PhiConfig(vocab_size=len(tokenizer) + 10, **sizes, pad_token_id=0))
        with torch.no_grad():
            network.lm_head.bias[len(tokenizer) :] = bias
        network.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        if usable:
            assert torch.isneginf(Policy.load(tmp_path).model.get_output_embeddings().bias[len(tokenizer) :]).all()
            return
        with pytest.raises(UserError, match=r"lm_head\.bias has NaN or infinite numbers"):
            Policy.load(tmp_path)

    def test_tensors_that_are_missing(self, tiny_model: Path, tmp_path: Path) -> None:
        """transformers draws them at random and goes on."""
        model = with_tensors(tiny_model, tmp_path / "model", **{"lm_head.weight": None})
        with pytest.raises(UserError, match=r"lack 1 tensors of a causal language model \(first: lm_head.weight\)"):
            Policy.load(model)

    def test_a_pickle(self, tiny_model: Path, tmp_path: Path) -> None:
        model = tmp_path / "model"
        shutil.copytree(tiny_model, model)
        (model / "model.safetensors").unlink()
        torch.save(AutoModelForCausalLM.from_pretrained(tiny_model).state_dict(), model / "pytorch_model.bin")
        with pytest.raises(UserError, match=r"pickle \(pytorch_model\.bin\).*only safetensors are.*convert") as error:
            Policy.load(model)
        assert "weights_only" not in str(error.value)


class TestAllParameters:
    def test_they_are_float32_whatever_the_type_of_the_model(
        self, tiny_model: Path, pair_rows: list[dict[str, str]], tmp_path: Path
    ) -> None:
        policy = Policy.load(tiny_model, adapter=None, dtype="bfloat16")
        assert any("model.dtype=bfloat16 is for frozen weights" in note for note in policy.notes)
        policy.require(["reference", "value"])
        for role in ("policy", "reference", "value"):
            assert {p.dtype for p in policy.roles.weights(role).values()} == {torch.float32}
        before = {name: p.detach().clone() for name, p in policy.roles.weights("policy").items()}
        config = TrainerConfig(steps=4, batch_size=8, max_length=200, precision="bfloat16", learning_rate=1e-6)
        result = Trainer(policy, tmp_path / "run", config).fit(DPO(), Preferences.from_rows(pair_rows))
        after = load_file(result.folder / "final" / "model.safetensors")
        assert {tensor.dtype for tensor in after.values()} == {torch.float32}
        # bfloat16 has 8 bits: an update of 1e-6 changes no weight beyond 2e-4; float32 has 24
        large = [(after[name] != p)[p.abs() > 1e-3] for name, p in before.items() if p.ndim == 2]
        assert torch.cat(large).float().mean() > 0.5
        state = load_file(result.folder / "checkpoints" / "step-00000004" / "optimizer.safetensors")
        assert {tensor.dtype for tensor in state.values()} == {torch.float32}

    def test_a_model_that_is_only_asked_keeps_its_type(
        self, tiny_model: Path, pair_rows: list[dict[str, str]], tmp_path: Path
    ) -> None:
        """And is not trained as it is."""
        policy = Policy.load_saved(tiny_model, dtype="bfloat16")
        assert policy.model.dtype == torch.bfloat16
        with pytest.raises(UserError, match=r"is bfloat16, .*trained weights must be float32"):
            Trainer(policy, tmp_path / "run", TrainerConfig(steps=1, max_length=200)).fit(
                DPO(), Preferences.from_rows(pair_rows)
            )

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_every_type_but_float32_is_refused(self, dtype: torch.dtype) -> None:
        parameter = torch.nn.Parameter(torch.zeros(2, 2, dtype=dtype))
        with pytest.raises(UserError, match=r"policy\.w is .*float16"):
            make_optimizer({"policy.w": parameter}, TrainerConfig(), 1e-3)

    def test_nothing_to_train_is_an_error(self) -> None:
        with pytest.raises(UserError, match="no parameter"):
            make_optimizer({}, TrainerConfig(), 1e-3)

    def test_an_adapter_to_begin_from_is_none_of_them(self, tiny_model: Path) -> None:
        with pytest.raises(UserError, match=r"adapter=none trains all parameters; add model\.start=null"):
            Policy.load(tiny_model, adapter=None, start="world/sft")
