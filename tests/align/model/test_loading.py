"""The errors of a model's files are one sentence each, and trained weights are float32."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import OfflineModeIsEnabled
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, AutoTokenizer, PhiConfig, PhiForCausalLM, PreTrainedTokenizerFast

from align import Policy, Preferences, Trainer, TrainerConfig
from align.data.rendering import chat_template
from align.errors import UserError
from align.model import loading
from align.model.loading import base_of, known_ids, load_tokenizer
from align.model.pinned_code import code_hash
from align.model.sources import require_loadable, require_safetensors, resolve
from align.settings.adapter import Adapter
from align.settings.config import ModelConfig
from align.training.optimizer import make_optimizer
from align.world.shipped import FOLDER
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
        (part,) = (result.folder / "checkpoints" / "step-00000004" / "parts").iterdir()
        assert {tensor.dtype for tensor in load_file(part).values()} == {torch.float32}

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


def stub(**tokens: str | None) -> PreTrainedTokenizerFast:
    """A tokenizer of five words with these special tokens."""
    words = Tokenizer(models.WordLevel({"a": 0, "b": 1, "<eos>": 2, "<bos>": 3, "<unk>": 4}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, **tokens)


class TestTokenizer:
    @pytest.mark.parametrize(
        ("tokens", "pad", "noted"),
        [
            ({"pad_token": "a", "unk_token": "<unk>"}, "a", False),
            ({"unk_token": "<unk>"}, "<unk>", True),
            ({"pad_token": "<eos>", "unk_token": "<unk>"}, "<unk>", True),
            ({}, "<|pad|>", True),
            ({"unk_token": "<eos>"}, "<|pad|>", True),
            ({"unk_token": "<bos>", "bos_token": "<bos>"}, "<|pad|>", True),
            ({"unk_token": "<unk>", "bos_token": "<bos>"}, "<unk>", True),
        ],
    )
    def test_the_pad_token_is_none_that_means_something(
        self, tokens: dict[str, str], pad: str, noted: bool, tmp_path: Path
    ) -> None:
        stub(eos_token="<eos>", **tokens).save_pretrained(tmp_path)
        notes: list[str] = []
        tokenizer = load_tokenizer(ModelConfig(name=str(tmp_path)), notes)
        assert tokenizer.pad_token == pad
        assert tokenizer.pad_token_id == {"a": 0, "<unk>": 4, "<|pad|>": 5}[pad]
        expected = f"pad token: {pad} (the tokenizer had none apart from end-of-sequence)"
        assert notes == ([expected] if noted else [])
        assert load_tokenizer(ModelConfig(name=str(tmp_path))).pad_token == pad

    def test_an_end_of_sequence_is_needed(self, tmp_path: Path) -> None:
        stub(pad_token="a").save_pretrained(tmp_path)
        with pytest.raises(UserError, match="no end-of-sequence token; set eos_token in it"):
            load_tokenizer(ModelConfig(name=str(tmp_path)))

    def test_a_folder_without_one(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=rf"model\.name={tmp_path}: no tokenizer could be loaded"):
            load_tokenizer(ModelConfig(name=str(tmp_path)))

    @pytest.mark.parametrize("fault", [httpx2.ConnectError("no network"), OfflineModeIsEnabled("offline")])
    def test_a_name_that_is_nowhere_is_asked_for_once(self, fault: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[str] = []

        def model_info(*given: Any, **_: Any) -> None:
            asked.append(given[1])
            raise fault

        monkeypatch.setattr(HfApi, "model_info", model_info)
        with pytest.raises(UserError) as refusal:
            load_tokenizer(ModelConfig(name="smolllm2"))
        assert asked == ["smolllm2"]
        assert str(refusal.value) == (
            "model.name=smolllm2: there is no such folder here, and the hub has no such model or cannot be reached "
            f"({fault}); correct the name, or give a folder."
        )

    def test_a_name_that_no_model_can_have(self) -> None:
        with pytest.raises(
            UserError, match=r"model\.name=a/b/c: there is no such folder here, and the hub has no such"
        ):
            load_tokenizer(ModelConfig(name="a/b/c"))

    def test_the_chat_template_of_the_settings_replaces_its_own(self, tiny_model: Path) -> None:
        own = load_tokenizer(ModelConfig(name=str(tiny_model))).chat_template
        for name in ("hh", "chatml"):
            tokenizer = load_tokenizer(ModelConfig(name=str(tiny_model), chat_template=name))
            assert tokenizer.chat_template == chat_template(name) != own

    def test_its_ids_are_those_of_its_tokens(self) -> None:
        tokenizer: Any = SimpleNamespace(get_vocab=lambda: {"c": 7, "a": 0, "b": 2, "alias": 2})
        assert known_ids(tokenizer) == [0, 2, 7]


def test_the_settings_of_the_hub_and_of_attention_reach_transformers(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    for cls in (AutoTokenizer, AutoModelForCausalLM):
        plain = cls.from_pretrained

        def recording(*arguments: Any, plain: Any = plain, **settings: Any) -> Any:
            asked.append(settings)
            return plain(*arguments, **settings)

        monkeypatch.setattr(cls, "from_pretrained", recording)
    commit = code_hash(tiny_model)
    policy = Policy.load(tiny_model, revision=commit, trust_remote_code=True, attention="eager", dtype="bfloat16")
    assert [(given["revision"], given["trust_remote_code"]) for given in asked] == [(commit, True)] * 2
    assert asked[1]["use_safetensors"] is True
    assert policy.model.config._attn_implementation == "eager"
    assert policy.model.dtype == torch.bfloat16
    asked.clear()
    policy = Policy.load(tiny_model)
    assert [(given["revision"], given["trust_remote_code"]) for given in asked] == [(None, False)] * 2
    assert policy.model.config._attn_implementation == "packed"
    assert policy.model.dtype == torch.float32


def test_a_layout_that_is_asked_for_is_used_and_loading_draws_no_random_number(tiny_model: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for wanted, layout in (("auto", "tree"), ("tree", "tree"), ("flat", "flat")):
        policy = Policy.load(tiny_model, layout=wanted)
        assert policy.layout == layout
        assert policy.notes[-1].startswith(f"layout: {layout}, ")
        assert len(policy.notes) == 1
    assert torch.equal(torch.get_rng_state(), before)
    assert policy.model.config.pad_token_id == policy.pad_id == 0
    assert policy.name == tiny_model.name
    assert policy.fused_head
    assert policy.pads_left


def test_the_embedded_adapter_is_on_its_own_base(tmp_path: Path) -> None:
    policy = Policy.load("world/base", start="world/sft")
    policy.save(tmp_path)
    assert not any("was trained on" in note for note in (*policy.notes, *Policy.load_saved(tmp_path).notes))
    assert policy.name == "world/base with world/sft"


@pytest.mark.parametrize(
    ("files", "refused"),
    [
        (["pytorch_model.bin"], "pytorch_model.bin"),
        (["b.pt", "consolidated.00.pth"], "b.pt"),
        (["consolidated.00.pth"], "consolidated.00.pth"),
        (["pytorch_model.bin", "model.safetensors"], None),
        (["config.json"], None),
        ([], None),
    ],
)
def test_a_folder_with_pickles_alone_is_refused(files: list[str], refused: str | None, tmp_path: Path) -> None:
    for file in files:
        (tmp_path / file).touch()
    if refused is None:
        require_safetensors(str(tmp_path), "model.name")
        return
    with pytest.raises(UserError, match=rf"reward=.*its weights are a pickle \({refused}\)"):
        require_safetensors(str(tmp_path), "reward")


def test_names_of_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    assert resolve("world/base") == str(FOLDER / "base")
    for name in ("Qwen/Qwen3-0.6B", "gpt2", str(tmp_path / "models")):
        assert resolve(name) == name
    assert resolve("~/models") == str(tmp_path / "models")
    for name in ("~/gone", "./gone", "/gone", "../gone"):
        with pytest.raises(UserError, match=f"reward={name}: there is no such folder"):
            resolve(name, "reward")


@pytest.mark.parametrize(
    ("settings", "adapter", "installed", "message"),
    [
        ({"quantization": "4bit"}, None, True, "quantization=4bit freezes the base; choose adapter=lora"),
        ({"quantization": "4bit"}, Adapter(), False, "needs bitsandbytes; pip install bitsandbytes"),
        ({"start": "world/sft"}, None, True, "world/sft is an adapter, but adapter=none trains all parameters"),
        ({"start": "world/sft"}, Adapter(r=999), True, "adapter.r=999, but the adapter of model.start=world/sft has"),
        ({"quantization": "4bit"}, Adapter(), True, None),
        ({}, None, False, None),
    ],
)
def test_what_is_known_before_the_weights_are_read(
    settings: dict[str, Any],
    adapter: Adapter | None,
    installed: bool,
    message: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("align.model.sources.find_spec", lambda _: object() if installed else None)
    config = ModelConfig(name="world/base", **settings)
    if message is None:
        assert require_loadable(config, adapter) is None
        return
    with pytest.raises(UserError, match=message):
        require_loadable(config, adapter)


def test_the_adapter_to_begin_from_is_found_before_the_weights_are_read() -> None:
    assert require_loadable(ModelConfig(name="world/base", start="world/sft"), Adapter()) == FOLDER / "sft"


def test_a_pad_token_beyond_the_embedding_gets_the_only_new_row(tiny_model: Path, tmp_path: Path) -> None:
    """Any other token there was never seen by the model."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    vocabulary = len(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "<new>"})
    network = AutoModelForCausalLM.from_pretrained(tiny_model)
    network.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    policy = Policy.load(tmp_path)
    table: Any = policy.model.get_input_embeddings().weight
    assert table.shape[0] == vocabulary + 1 == len(tokenizer)
    assert torch.equal(table[:vocabulary], network.get_input_embeddings().weight)
    assert policy.model.config.pad_token_id == policy.pad_id == vocabulary
    assert "embedding: one row added for <new>" in policy.notes
    tokenizer.add_tokens(["another"])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=rf"has {vocabulary + 2} tokens but the model embeds only {vocabulary} "):
        Policy.load(tmp_path)


def test_a_model_that_is_asked_may_have_another_template_than_its_base(tiny_model: Path, tmp_path: Path) -> None:
    """Of an adapter and of a whole model; the reference of an adapter is the saved one too."""
    for adapter in (Adapter(r=2), None):
        folder = tmp_path / str(adapter is None)
        policy = Policy.load(tiny_model, adapter=adapter, chat_template="hh")
        with torch.no_grad():
            for parameter in policy.roles.weights("policy").values():
                parameter.add_(0.02)
        policy.save(folder)
        saved = Policy.load_saved(folder)
        assert saved.tokenizer.chat_template == policy.tokenizer.chat_template
        assert base_of(folder / "adapter_config.json") == str(tiny_model.resolve()) if adapter else True
        ours, theirs = policy.roles.weights("policy"), saved.roles.weights("policy")
        assert all(torch.equal(theirs[name], tensor) for name, tensor in ours.items())
        if adapter is not None:
            reference = saved.roles.weights("reference")
            assert all(torch.equal(reference[name], tensor) for name, tensor in ours.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_4_bit_base_computes_in_the_type_of_the_settings(dtype: torch.dtype) -> None:
    """QLoRA's setting: NF4 with double quantisation (Dettmers et al. 2023)."""
    made: Any = loading._four_bit(dtype)  # pyright: ignore[reportPrivateUsage]
    assert (made.load_in_4bit, made.bnb_4bit_quant_type, made.bnb_4bit_use_double_quant) == (True, "nf4", True)
    assert made.bnb_4bit_compute_dtype == dtype
