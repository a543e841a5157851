"""Adapters to begin from: each computes what plain PEFT does and is trained as a whole, or is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from align.errors import UserError
from align.model.adapters import local_folder, read_start
from align.model.policy import Policy
from align.settings.adapter import Adapter
from tests.align.model.peft_adapters import BATCH, IDS, WEIGHTS, logits, make_adapter, plain_logits

CONTINUED: dict[str, dict[str, Any]] = {
    "plain": {},
    "dropout": {"lora_dropout": 0.5},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "dora dropout": {"use_dora": True, "lora_dropout": 0.5},
    "patterns": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 32}},
    "one layer": {"layers_to_transform": [1]},
    "excluded": {"exclude_modules": ["layers.0.mlp.up_proj"]},
    "regular expression": {"target_modules": r".*\.(q|v)_proj"},
    "gaussian": {"init_lora_weights": "gaussian"},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "embedding alone": {"target_modules": ["embed_tokens"], "lora_dropout": 0.5},
    "embedding dora": {"target_modules": ["q_proj", "embed_tokens"], "use_dora": True},
}


@pytest.mark.parametrize("settings", CONTINUED.values(), ids=CONTINUED)
def test_an_adapter_is_continued_exactly(settings: dict[str, Any], tiny_model: Path, tmp_path: Path) -> None:
    """Policy, reference and later roles are plain PEFT's model; all of it is trained, saved, and read by plain PEFT."""
    trained = make_adapter(tiny_model, tmp_path / "start", **settings)
    expected = plain_logits(tiny_model, tmp_path / "start")
    assert (expected - AutoModelForCausalLM.from_pretrained(tiny_model)(IDS).logits).abs().max() > 1e-3
    policy = Policy.load(tiny_model, start=tmp_path / "start")
    policy.require(["reward", "value"])
    for role in ("policy", "reference", "reward", "value"):
        torch.testing.assert_close(logits(policy, role), expected)
    weights = policy.roles.weights("policy")
    assert sum(parameter.numel() for parameter in weights.values()) == trained
    policy.logprobs(BATCH).logp_PKT.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in weights.values())
    with torch.no_grad():
        for parameter in weights.values():
            assert parameter.grad is not None
            parameter.sub_(0.5 * parameter.grad)
    after = logits(policy)
    assert (after - expected).abs().max() > 1e-3
    torch.testing.assert_close(logits(policy, "reference"), expected)
    with torch.no_grad(), policy.roles.merged():
        torch.testing.assert_close(policy.model.eval()(IDS).logits, after, atol=1e-4, rtol=1e-4)
    policy.save(tmp_path / "end")
    torch.testing.assert_close(plain_logits(tiny_model, tmp_path / "end"), after)
    torch.testing.assert_close(plain_logits(tiny_model, tmp_path / "end" / "reference"), expected)
    again = Policy.load(tiny_model, start=tmp_path / "start")
    again.roles.load("policy", tmp_path / "end")  # as a resumed run does
    assert torch.equal(logits(again), after)


REFUSED: dict[str, Any] = {
    "modules_to_save": ["lm_head", "embed_tokens"],
    "trainable_token_indices": [60, 61],
    "bias": "all",
    "lora_bias": True,
    "layer_replication": [[0, 2], [1, 2]],
    "target_parameters": ["mlp.up_proj.weight"],
    "use_qalora": True,
    "alora_invocation_tokens": [5],
    "arrow_config": {"top_k": 2},
    "kasa_config": {"beta": 1.0},
    "ensure_weight_tying": True,
    "an_option_of_next_year": True,
}


@pytest.fixture(scope="module")
def plain(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    make_adapter(tiny_model, folder)
    return folder


def copied(plain: Path, folder: Path, **settings: Any) -> Path:
    """A copy of an adapter with other words in its configuration."""
    config = json.loads((plain / "adapter_config.json").read_text()) | settings
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(load_file(plain / WEIGHTS), folder / WEIGHTS)
    return folder


@pytest.mark.parametrize(("name", "value"), [*REFUSED.items(), ("bias", "lora_only")])
def test_more_than_lora_is_refused_by_name(
    name: str, value: Any, plain: Path, tiny_model: Path, tmp_path: Path
) -> None:
    start = copied(plain, tmp_path, **{name: value})
    with pytest.raises(UserError, match=rf"{name}=.*merge it into its base") as error:
        Policy.load(tiny_model, start=start)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("value", ["pissa", "pissa_niter_4", "olora", "corda", "lora_ga", "loftq", "eva", "mica"])
def test_an_initialisation_that_changed_the_base_is_refused(
    value: str, plain: Path, tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"init_lora_weights={value} changed the weights of the base"):
        Policy.load(tiny_model, start=copied(plain, tmp_path, init_lora_weights=value))


def test_another_kind_of_adapter_is_refused(plain: Path, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its adapter is IA3, only LoRA can be continued"):
        Policy.load(tiny_model, start=copied(plain, tmp_path, peft_type="IA3"))


def test_peft_writes_what_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    """The real files of the cases, not only their words."""
    make_adapter(tiny_model, tmp_path / "modules", modules_to_save=["lm_head"])
    make_adapter(tiny_model, tmp_path / "tokens", trainable_token_indices=[60, 61])
    for name in ("modules", "tokens"):
        with pytest.raises(UserError, match="more than LoRA's own matrices"):
            Policy.load(tiny_model, start=tmp_path / name)


def test_every_tensor_of_the_file_belongs_to_the_adapter(plain: Path, tiny_model: Path, tmp_path: Path) -> None:
    """A tensor too many, one too few, another shape, NaN, or a changed embedding: each is named."""
    q = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    embedding = "base_model.model.model.embed_tokens.weight"
    tensors = load_file(plain / WEIGHTS)
    table = load_file(tiny_model / "model.safetensors")["model.embed_tokens.weight"]
    changed: dict[str, tuple[dict[str, torch.Tensor], str]] = {
        "an extra one": (
            tensors | {q.replace("layers.0", "layers.7"): tensors[q].clone()},
            "does not fit this model.*layers.7",
        ),
        "one missing": (
            {name: t for name, t in tensors.items() if name != q},
            "does not fit this model.*q_proj.lora_A",
        ),
        "another shape": (tensors | {q: tensors[q][:, :-1].contiguous()}, "does not fit this model.*size mismatch"),
        "not a number": (tensors | {q: tensors[q] * torch.nan}, r"q_proj.lora_A.weight has NaN"),
        "infinite": (
            tensors | {q: tensors[q].index_fill(0, torch.tensor([1]), torch.inf)},
            r"q_proj.lora_A.weight has NaN",
        ),
        "an embedding": (tensors | {embedding: table + 1}, r"embed_tokens.weight is no matrix of LoRA"),
        "a head": (tensors | {"base_model.model.score.weight": torch.ones(1, 32)}, r"score.weight is no matrix"),
    }
    for number, (state, words) in enumerate(changed.values()):
        folder = tmp_path / str(number)
        folder.mkdir()
        save_file(state, copied(plain, folder) / WEIGHTS)
        with pytest.raises(UserError, match=words):
            Policy.load(tiny_model, start=folder)
    save_file(tensors | {embedding: table}, copied(plain, tmp_path) / WEIGHTS)  # a copy of the base's adds nothing
    torch.testing.assert_close(logits(Policy.load(tiny_model, start=tmp_path)), plain_logits(tiny_model, plain))


def test_files_that_are_no_adapter(plain: Path, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"it has no adapter_config\.json"):
        Policy.load(tiny_model, start=tiny_model)
    folder = copied(plain, tmp_path)
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")
    with pytest.raises(UserError, match="only safetensors are read"):
        Policy.load(tiny_model, start=folder)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(UserError, match=r"adapter_config\.json is not JSON"):
        Policy.load(tiny_model, start=folder)


def test_an_adapter_of_another_base_is_noted(plain: Path, tiny_model: Path, tmp_path: Path) -> None:
    start = copied(plain, tmp_path, base_model_name_or_path="someone/other")
    notes = Policy.load(tiny_model, start=start).notes
    assert any("was trained on someone/other; it is put on" in note for note in notes)
    assert not any("was trained on" in note for note in Policy.load(tiny_model, start=plain).notes)


def test_an_adapter_that_was_saved_here_is_on_its_own_base(tiny_model: Path, tmp_path: Path) -> None:
    """It names the base relative to its folder; the model may be given by another path."""
    Policy.load(tiny_model, adapter=Adapter(r=2)).save(tmp_path / "start")
    assert json.loads((tmp_path / "start" / "adapter_config.json").read_text())["base_model_name_or_path"].startswith(
        "."
    )
    (tmp_path / "link").symlink_to(tiny_model)
    for model in (tiny_model, tmp_path / "link"):
        assert not any("was trained on" in note for note in Policy.load(model, start=tmp_path / "start").notes)


class TestWhereItIs:
    def test_a_name_on_the_hub_is_fetched_without_its_other_files(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[Any] = []
        monkeypatch.setattr(
            "huggingface_hub.snapshot_download", lambda name, **rest: asked.append((name, rest)) or str(tmp_path)
        )
        assert local_folder("someone/adapter") == tmp_path
        assert asked == [("someone/adapter", {"allow_patterns": ["adapter_config.json", "adapter_model.*"]})]
        assert local_folder(str(tmp_path)) == tmp_path
        assert len(asked) == 1

    @pytest.mark.parametrize("name", ["no such name", "someone/not-cached"])
    def test_what_is_neither_is_answered(self, name: str) -> None:
        with pytest.raises(UserError, match=rf"model\.start={name}: no PEFT adapter there"):
            local_folder(name)


@pytest.mark.parametrize("missing", ["init_lora_weights", "bias", "peft_version"])
def test_settings_that_an_older_version_did_not_write(missing: str, plain: Path, tmp_path: Path) -> None:
    copied(plain, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    config.pop(missing)
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert read_start(tmp_path) == config


@pytest.mark.parametrize("value", [True, False, "gaussian", "orthogonal"])
def test_initialisations_that_leave_the_base_alone(value: Any, plain: Path, tmp_path: Path) -> None:
    assert read_start(copied(plain, tmp_path, init_lora_weights=value))["init_lora_weights"] == value
