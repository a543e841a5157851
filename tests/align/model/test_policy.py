"""Roles, their files as other libraries read them, and the rules of loading."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from align.errors import UserError
from align.model.batch import Batch
from align.model.policy import Policy
from align.model.roles import SharedBase
from align.settings.adapter import Adapter

BATCH = Batch(([7, 8, 9], [10, 11]), (([12, 13, 2], [14, 2]), ([15, 16], [17, 18, 19, 2])), (0, 1))
IDS = torch.tensor([[7, 8, 9, 12, 13, 2]])


def logits(policy: Policy) -> torch.Tensor:
    with torch.no_grad():
        return policy.model.eval()(IDS).logits


def disturb(policy: Policy, role: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.roles.parameters(role).values():  # pyright: ignore[reportArgumentType]
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


class TestUse:
    def test_restores_the_role_before_it_also_after_an_exception(self, tiny_policy: Policy) -> None:
        tiny_policy.require(["value"])
        with tiny_policy.use("value"):
            with tiny_policy.use("reference"):
                assert tiny_policy.role == "reference"
            assert tiny_policy.role == "value"
            with pytest.raises(RuntimeError), tiny_policy.use("policy"):
                raise RuntimeError
            assert tiny_policy.role == "value"
        assert tiny_policy.role == "policy"

    def test_the_reference_is_the_base_and_nothing_leaks_from_the_policy(self, tiny_model: Path) -> None:
        base = AutoModelForCausalLM.from_pretrained(tiny_model)
        policy = Policy.load(str(tiny_model))
        torch.testing.assert_close(logits(policy), base(IDS).logits)  # B = 0
        disturb(policy, "policy", 1)
        assert (logits(policy) - base(IDS).logits).abs().max() > 1e-3
        with policy.use("reference"):
            torch.testing.assert_close(logits(policy), base(IDS).logits)

    def test_only_the_role_in_use_gets_gradients(self, tiny_policy: Policy) -> None:
        tiny_policy.require(["value"])
        tiny_policy.logprobs(BATCH).logp_PKT.sum().backward()
        assert all(p.grad is not None for p in tiny_policy.roles.parameters("policy").values())
        assert all(p.grad is None for p in tiny_policy.roles.parameters("value").values())
        base = [p for n, p in tiny_policy.model.named_parameters() if ".lora_" not in n]
        assert all(p.grad is None for p in base)

    def test_dropout_is_active_in_the_trained_policy_only(self, tiny_model: Path) -> None:
        policy = Policy.load(str(tiny_model), adapter=Adapter(dropout=0.5))
        disturb(policy, "policy", 1)
        assert not torch.equal(policy.logprobs(BATCH).logp_PKT, policy.logprobs(BATCH).logp_PKT)
        with torch.no_grad():
            assert torch.equal(policy.logprobs(BATCH).logp_PKT, policy.logprobs(BATCH).logp_PKT)
        with policy.use("reference"):
            assert torch.equal(policy.logprobs(BATCH).logp_PKT, policy.logprobs(BATCH).logp_PKT)

    def test_a_role_that_was_never_added(self, tiny_policy: Policy) -> None:
        with pytest.raises(UserError, match="no reward role"), tiny_policy.use("reward"):
            pass


def test_rewards_and_values_stay_float32_under_autocast(tiny_policy: Policy) -> None:
    """The head computes what float64 does with the same hidden states, here near .95 as in bfloat16 it would not."""
    tiny_policy.require(["reward"])
    with tiny_policy.use("reward"), torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        forward = tiny_policy.forward
        rows = forward.rows(BATCH)
        hidden = forward.hidden(rows)
        for found, place in ((tiny_policy.scalars(BATCH), rows.last_PK), (tiny_policy.values(BATCH), rows.source_PKT)):
            expected = hidden.double() @ tiny_policy.roles.heads["reward"].weight[0].double()
            assert found.dtype == torch.float32
            seen = BATCH.valid_PK if place.ndim == 2 else BATCH.mask_PKT
            torch.testing.assert_close(found.double(), expected[place] * seen, atol=1e-5, rtol=1e-5)


class TestStartFromAnAdapter:
    def test_the_reference_is_a_frozen_copy_of_it(self, tiny_policy: Policy, tiny_model: Path, tmp_path: Path) -> None:
        tiny_policy.save(tmp_path)
        expected = logits(tiny_policy)
        policy = Policy.load(str(tiny_model), start=str(tmp_path))
        torch.testing.assert_close(logits(policy), expected)
        disturb(policy, "policy", 2)
        assert (logits(policy) - expected).abs().max() > 1e-3
        with policy.use("reference"):
            torch.testing.assert_close(logits(policy), expected)
            assert not policy.logprobs(BATCH).logp_PKT.requires_grad
            assert not any(p.requires_grad for p in policy.roles.weights("reference").values())

    def test_a_new_role_begins_as_the_policy_did(self, tiny_policy: Policy, tiny_model: Path, tmp_path: Path) -> None:
        tiny_policy.save(tmp_path)
        policy = Policy.load(str(tiny_model), start=str(tmp_path))
        expected = logits(policy)
        disturb(policy, "policy", 2)
        policy.require(["value"])
        with policy.use("value"):
            torch.testing.assert_close(logits(policy), expected)

    @pytest.mark.parametrize(("adapter", "word"), [(Adapter(r=8), "adapter.r=8"), (Adapter(dora=True), "adapter.dora")])
    def test_contradicting_settings_are_refused(
        self, tiny_policy: Policy, tiny_model: Path, tmp_path: Path, adapter: Adapter, word: str
    ) -> None:
        tiny_policy.save(tmp_path)
        with pytest.raises(UserError, match=word):
            Policy.load(str(tiny_model), start=str(tmp_path), adapter=adapter)


class TestMerged:
    def test_it_computes_the_same_and_the_base_is_put_back(self, tiny_policy: Policy) -> None:
        """Bit for bit; inside, the adapter's own matrices are not looked at."""
        tiny_policy.require(["value"])
        disturb(tiny_policy, "policy", 1)
        before = {name: p.detach().clone() for name, p in tiny_policy.model.named_parameters()}
        expected = logits(tiny_policy)
        with tiny_policy.roles.merged():
            torch.testing.assert_close(logits(tiny_policy), expected, atol=1e-5, rtol=1e-4)
            disturb(tiny_policy, "policy", 2)
            torch.testing.assert_close(logits(tiny_policy), expected, atol=1e-5, rtol=1e-4)
        disturbed = tiny_policy.roles.parameters("policy").values()
        for name, parameter in tiny_policy.model.named_parameters():
            assert torch.equal(parameter, before[name]) != any(parameter is p for p in disturbed), name
        assert (logits(tiny_policy) - expected).abs().max() > 1e-3

    def test_the_base_is_put_back_after_an_exception(self, tiny_policy: Policy) -> None:
        disturb(tiny_policy, "policy", 1)
        expected = logits(tiny_policy)
        with pytest.raises(RuntimeError), tiny_policy.roles.merged():
            raise RuntimeError
        assert torch.equal(logits(tiny_policy), expected)

    def test_the_reference_has_nothing_to_merge(self, tiny_policy: Policy) -> None:
        disturb(tiny_policy, "policy", 1)
        with tiny_policy.use("reference"):
            expected = logits(tiny_policy)
            with tiny_policy.roles.merged():
                assert torch.equal(logits(tiny_policy), expected)

    def test_a_base_in_bfloat16_is_left_alone(self, tiny_model: Path) -> None:
        policy = Policy.load(str(tiny_model), dtype="bfloat16")
        disturb(policy, "policy", 1)
        expected = logits(policy)
        with policy.roles.merged():
            assert torch.equal(logits(policy), expected)


class TestFiles:
    def test_peft_alone_loads_the_policy(self, tiny_policy: Policy, tiny_model: Path, tmp_path: Path) -> None:
        tiny_policy.save(tmp_path)
        alone = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), str(tmp_path)).eval()
        torch.testing.assert_close(alone(IDS).logits, logits(tiny_policy))
        assert AutoTokenizer.from_pretrained(tmp_path).pad_token == "<|pad|>"

    def test_peft_alone_loads_a_reference_that_is_an_adapter(
        self, tiny_policy: Policy, tiny_model: Path, tmp_path: Path
    ) -> None:
        tiny_policy.save(tmp_path / "start")
        expected = logits(tiny_policy)
        policy = Policy.load(str(tiny_model), start=str(tmp_path / "start"))
        disturb(policy, "policy", 2)
        policy.save(tmp_path / "end")
        base = AutoModelForCausalLM.from_pretrained(tiny_model)
        alone = PeftModel.from_pretrained(base, str(tmp_path / "end" / "reference")).eval()
        torch.testing.assert_close(alone(IDS).logits, expected)

    @pytest.mark.parametrize("role", ["reward", "value"])
    def test_sequence_classification_loads_scalar_roles(
        self, role: str, tiny_policy: Policy, tiny_model: Path, tmp_path: Path
    ) -> None:
        tiny_policy.require([role])  # pyright: ignore[reportArgumentType]
        disturb(tiny_policy, role, 4)
        with tiny_policy.use(role), torch.no_grad():  # pyright: ignore[reportArgumentType]
            expected = tiny_policy.scalars(Batch(([7, 8, 9],), (([12, 13, 2],),), (0,)))
        tiny_policy.save(tmp_path)
        base = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1)
        alone = PeftModel.from_pretrained(base, str(tmp_path / role)).eval()
        torch.testing.assert_close(alone(IDS).logits, expected)

    def test_every_role_reads_back_what_it_wrote(self, tiny_policy: Policy, tiny_model: Path, tmp_path: Path) -> None:
        tiny_policy.require(["reward", "value"])
        for seed, role in enumerate(("policy", "reward", "value")):
            disturb(tiny_policy, role, seed)
            tiny_policy.roles.save(role, tmp_path / role)  # pyright: ignore[reportArgumentType]
        other = Policy.load(str(tiny_model), adapter=Adapter(r=4), seed=9)
        other.require(["reward", "value"])
        for role in ("policy", "reward", "value"):
            other.roles.load(role, tmp_path / role)  # pyright: ignore[reportArgumentType]
            ours, theirs = other.roles.parameters(role), tiny_policy.roles.parameters(role)  # pyright: ignore[reportArgumentType]
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    def test_full_copies_read_back_what_they_wrote(self, tiny_model: Path, tmp_path: Path) -> None:
        policy = Policy.load(str(tiny_model), adapter=None)
        policy.require(["reference", "reward"])
        start = logits(policy)
        disturb(policy, "policy", 1)
        disturb(policy, "reward", 2)
        policy.roles.save("policy", tmp_path / "policy")
        policy.roles.save("reward", tmp_path / "reward")
        other = Policy.load(str(tiny_model), adapter=None)
        other.require(["reward"])
        other.roles.load("policy", tmp_path / "policy")
        other.roles.load("reward", tmp_path / "reward")
        assert torch.equal(logits(other), logits(policy))
        assert torch.equal(other.roles.heads["reward"].weight, policy.roles.heads["reward"].weight)
        with policy.use("reference"):
            assert torch.equal(logits(policy), start)

    def test_the_merged_model_is_the_adapter_model(self, tiny_policy: Policy, tmp_path: Path) -> None:
        expected = logits(tiny_policy)
        difference = tiny_policy.merge_and_export(tmp_path)
        assert difference < 1e-5
        merged = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
        torch.testing.assert_close(merged(IDS).logits, expected, atol=1e-5, rtol=1e-5)
        assert torch.equal(logits(tiny_policy), expected)  # the policy itself is left as it was
        assert not any("lora" in name for name in merged.state_dict())

    @pytest.mark.parametrize(
        "adapter", [Adapter(r=4, rslora=True), Adapter(r=4, dora=True), Adapter(targets=("q_proj",))]
    )
    def test_other_adapters_save_and_merge_too(self, adapter: Adapter, tiny_model: Path, tmp_path: Path) -> None:
        policy = Policy.load(str(tiny_model), adapter=adapter)
        disturb(policy, "policy", 1)
        assert policy.merge_and_export(tmp_path / "merged") < 1e-5
        policy.save(tmp_path)
        alone = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), str(tmp_path)).eval()
        torch.testing.assert_close(alone(IDS).logits, logits(policy))

    @pytest.mark.parametrize("tied", [True, False])
    def test_an_adapter_on_tied_embeddings_merges_into_them_alone(
        self, tied: bool, tiny_model: Path, tmp_path: Path
    ) -> None:
        config = AutoConfig.from_pretrained(tiny_model, tie_word_embeddings=tied)
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
        AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "base")
        policy = Policy.load(str(tmp_path / "base"), adapter=Adapter(r=4, targets=("embed_tokens", "q_proj")))
        disturb(policy, "policy", 1)
        assert policy.merge_and_export(tmp_path / "merged") < 1e-5
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
        torch.testing.assert_close(merged(IDS).logits, logits(policy), atol=1e-5, rtol=1e-5)

    def test_the_saved_adapter_holds_no_embeddings(self, tiny_policy: Policy, tmp_path: Path) -> None:
        from safetensors.torch import load_file

        tiny_policy.save(tmp_path)
        assert all(".lora_" in name for name in load_file(tmp_path / "adapter_model.safetensors"))
        assert json.loads((tmp_path / "adapter_config.json").read_text())["inference_mode"] is True


class TestLoading:
    def test_lora_follows_its_definition(self) -> None:
        """The vector of Hu et al.'s equation: W x + (α/r) B A x, and rsLoRA's α/√r."""
        from peft import get_peft_model
        from torch import nn

        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(3, 2, bias=False)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.layer(x)

        weights = {
            "W": torch.tensor([[1.0, 0, 2], [0, 1, -1]]),
            "A": torch.tensor([[0.5, -0.5, 1], [1, 0, -1]]),
            "B": torch.tensor([[1.0, 0], [0.5, 2]]),
        }
        x = torch.tensor([1.0, 2, 3])
        for rslora, expected in ((False, [12, -6.5]), (True, [14.071068, -8.778175])):
            config = Adapter(r=2, alpha=4, targets=("layer",), rslora=rslora).to_peft()
            config.task_type = None
            model = get_peft_model(Model(), config)  # pyright: ignore[reportArgumentType]
            layer = model.base_model.model.layer
            with torch.no_grad():
                layer.base_layer.weight.copy_(weights["W"])
                torch.testing.assert_close(model(x), torch.tensor([7.0, -1.0]))  # B = 0
                layer.lora_A["default"].weight.copy_(weights["A"])
                layer.lora_B["default"].weight.copy_(weights["B"])
                torch.testing.assert_close(model(x), torch.tensor(expected))

    def test_bfloat16_base_with_float32_adapters(self, tiny_model: Path) -> None:
        exact = Policy.load(str(tiny_model))
        policy = Policy.load(str(tiny_model), dtype="bfloat16")
        assert policy.model.dtype == torch.bfloat16
        assert {p.dtype for p in policy.roles.weights("policy").values()} == {torch.float32}
        out, expected = policy.logprobs(BATCH).logp_PKT, exact.logprobs(BATCH).logp_PKT
        assert out.dtype == torch.float32
        torch.testing.assert_close(out, expected, atol=0.1, rtol=0.02)
        out.sum().backward()
        assert all(p.grad is not None for p in policy.roles.weights("policy").values())

    def test_pad_that_is_eos_is_replaced(self, tiny_model: Path, tmp_path: Path) -> None:
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        tokenizer = AutoTokenizer.from_pretrained(tiny_model)
        tokenizer.pad_token = tokenizer.eos_token
        model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        policy = Policy.load(str(tmp_path))
        assert policy.pad_id != policy.tokenizer.eos_token_id
        assert any("pad token" in note for note in policy.notes)

    def test_a_new_pad_token_gets_a_row_and_the_adapter_still_fits_the_base(
        self, tiny_model: Path, tmp_path: Path
    ) -> None:
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        data = json.loads((tiny_model / "tokenizer_config.json").read_text())
        data.pop("pad_token")
        tokenizer = AutoTokenizer.from_pretrained(tiny_model)
        tokenizer.save_pretrained(tmp_path)
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(data))
        model.save_pretrained(tmp_path)
        policy = Policy.load(str(tmp_path), adapter=Adapter(r=4))
        disturb(policy, "policy", 1)
        assert policy.model.get_input_embeddings().weight.shape[0] >= len(policy.tokenizer)
        policy.save(tmp_path / "adapter")
        alone = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path), str(tmp_path / "adapter"))
        vocabulary = model.config.vocab_size
        torch.testing.assert_close(alone.eval()(IDS).logits, logits(policy)[..., :vocabulary])

    def test_a_tokenizer_larger_than_the_embedding_is_refused(self, tiny_model: Path, tmp_path: Path) -> None:
        tokenizer = AutoTokenizer.from_pretrained(tiny_model)
        tokenizer.add_tokens(["onetoken", "another"])
        AutoModelForCausalLM.from_pretrained(tiny_model).save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        with pytest.raises(UserError, match="embeds only"):
            Policy.load(str(tmp_path))

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"dtype": "float17"}, "dtype must be float32 or bfloat16, not 'float17'"),
            ({"trust_remote_code": True}, "revision must be the 40-digit commit"),
            ({"layuot": "flat"}, 'layuot is not a setting of ModelConfig. Did you mean "layout"'),
            ({"adapter": None, "start": "x"}, "adapter=none"),
            ({"start": "/nowhere"}, "start='/nowhere': there is no such file or folder"),
            ({"adapter": Adapter(targets=("no_such_layer",))}, "adapter.targets"),
            ({"adapter": Adapter(targets=("lm_head",))}, "output head"),
            ({"quantization": "4bit", "adapter": None}, "freezes the base"),
        ],
    )
    def test_mistakes_are_answered_in_one_sentence(
        self, tiny_model: Path, settings: dict[str, object], message: str
    ) -> None:
        with pytest.raises(UserError, match=message):
            Policy.load(str(tiny_model), **settings)  # pyright: ignore[reportArgumentType]

    def test_a_folder_that_is_not_there(self) -> None:
        with pytest.raises(UserError, match="no such file or folder"):
            Policy.load("./no/such/model")

    def test_initial_adapters_depend_on_the_seed_alone(self, tiny_model: Path) -> None:
        torch.manual_seed(1)
        first = Policy.load(str(tiny_model), seed=5)
        torch.manual_seed(2)
        second = Policy.load(str(tiny_model), seed=5)
        ours, theirs = first.roles.parameters("policy"), second.roles.parameters("policy")
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        third = Policy.load(str(tiny_model), seed=6).roles.parameters("policy")
        assert any(not torch.equal(ours[name], third[name]) for name in ours)

    def test_roles_share_one_base(self, tiny_policy: Policy) -> None:
        assert isinstance(tiny_policy.roles, SharedBase)
        before = sum(p.numel() for n, p in tiny_policy.model.named_parameters() if ".lora_" not in n)
        tiny_policy.require(["reward", "value"])
        after = sum(p.numel() for n, p in tiny_policy.model.named_parameters() if ".lora_" not in n)
        assert before == after


@pytest.mark.parametrize(("place", "kind"), [("run", "a run, which keeps an adapter"), ("run/final", "an adapter")])
def test_a_run_is_no_base(place: str, kind: str, tiny_policy: Policy, tmp_path: Path) -> None:
    tiny_policy.save(tmp_path / "run" / "final")
    said = rf"^model\.name={tmp_path}/{place} is {kind}, .*: give its base as model, and model\.start=.*/run/final to"
    with pytest.raises(UserError, match=said):
        Policy.load(tmp_path / place)
