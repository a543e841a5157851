"""Adapters to begin from, and new ones: each computes what plain PEFT does and is trained as a whole, or is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

from align.errors import UserError
from align.model.adapters import check_start, local_folder, lora_config, read_start, without_direction
from align.model.batch import Batch
from align.model.policy import Policy
from align.settings.adapter import Adapter
from tests.align.model.architectures import tiny_config, tiny_network

BATCH = Batch(([7, 8, 9], [10, 11]), (([12, 13, 2], [14, 2]), ([15, 16], [17, 18, 19, 2])), (0, 1))
IDS = torch.tensor([[7, 8, 9, 12, 13, 2]])
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
WEIGHTS = "adapter_model.safetensors"

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


def make_adapter(base: Path, folder: Path, **settings: Any) -> int:
    """Write an adapter with PEFT alone, every weight of it moved; returns the number of weights that PEFT trains."""
    torch.manual_seed(1)
    defaults: dict[str, Any] = {"task_type": TaskType.CAUSAL_LM, "r": 4, "lora_alpha": 8, "target_modules": ALL}
    config = LoraConfig(**defaults | settings)
    peft_model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    trained = [parameter for parameter in peft_model.parameters() if parameter.requires_grad]
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(0.1 * torch.randn_like(parameter))
    peft_model.save_pretrained(str(folder), save_embedding_layers=True)
    return sum(parameter.numel() for parameter in trained)


def plain_logits(base: Path, folder: Path) -> torch.Tensor:
    """The logits of PEFT and transformers without this project."""
    with torch.no_grad():
        return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(folder)).eval()(IDS).logits


def logits(policy: Policy, role: Any = "policy") -> torch.Tensor:
    with torch.no_grad(), policy.use(role):
        return policy.model.eval()(IDS).logits


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


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"r": 8}, "adapter.r=8"),
        ({"alpha": 3.0}, "adapter.alpha=3.0"),
        ({"dropout": 0.1}, "adapter.dropout=0.1"),
        ({"targets": ("q_proj",)}, r"adapter.targets=\('q_proj',\)"),
        ({"rslora": True}, "adapter.rslora=True"),
        ({"dora": True}, "adapter.dora=True"),
    ],
)
def test_settings_that_contradict_the_start(
    settings: dict[str, Any], words: str, plain: Path, tiny_model: Path
) -> None:
    with pytest.raises(UserError, match=f"{words}.*model.start=null"):
        Policy.load(tiny_model, start=plain, adapter=Adapter(**settings))


def test_settings_that_agree_with_the_start(tiny_model: Path, tmp_path: Path) -> None:
    make_adapter(tiny_model, tmp_path, r=8, lora_alpha=5)
    Policy.load(tiny_model, start=tmp_path, adapter=Adapter(r=8, targets=tuple(ALL)))


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


SAVED = {
    "r": 4,
    "lora_alpha": 8,
    "lora_dropout": 0.5,
    "target_modules": ["v_proj", "q_proj"],
    "use_rslora": True,
    "use_dora": True,
}


@pytest.mark.parametrize(
    "settings",
    [
        {},  # what is left at its default is no setting, even where the adapter has another
        {"r": 4},
        {"alpha": 8.0},
        {"r": 4, "alpha": 8.0, "dropout": 0.5, "targets": ("q_proj", "v_proj"), "rslora": True, "dora": True},
        {"targets": ("v_proj", "q_proj")},
    ],
)
def test_settings_that_the_start_has_too(settings: dict[str, Any]) -> None:
    check_start(SAVED, Adapter(**settings), "x")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("r", 8),
        ("alpha", 4.0),
        ("dropout", 0.25),
        ("targets", ("q_proj",)),
        ("targets", ("q_proj", "v_proj", "o_proj")),
    ],
)
def test_settings_that_the_start_does_not_have(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"adapter\.{name}=.*model\.start=x has "):
        check_start(SAVED, Adapter(**{name: value}), "x")


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


def test_the_order_of_the_targets_says_nothing() -> None:
    """PEFT keeps them as a set, which has another order in each process."""
    for saved in (ALL, ALL[::-1], sorted(ALL)):
        check_start(SAVED | {"target_modules": saved}, Adapter(targets=tuple(ALL)), "x")
