"""The weights of each role: where dropout is active, what is copied and read back, which parameters have a gradient."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from align import Policy, Preferences, Trainer, TrainerConfig
from align.errors import UserError
from align.model.batch import Batch
from align.runs.tracker import read_records
from align.settings.adapter import Adapter
from methods import DPO, PPO, SFT
from reward import RewardModel

BATCH = Batch(([7, 8, 9], [10, 11]), (([12, 13, 2], [14, 2]), ([15, 16], [17, 18, 19, 2])), (0, 1))
ROLES: tuple[Any, ...] = ("policy", "reference", "reward", "value")
ADAPTERS = {
    "lora": Adapter(r=4, dropout=0.5),
    "rslora": Adapter(r=4, dropout=0.5, rslora=True),
    "dora": Adapter(r=4, dropout=0.5, dora=True),
    "embedding": Adapter(r=4, dropout=0.5, targets=("embed_tokens", "v_proj")),
}


def disturb(policy: Policy, role: Any, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.roles.parameters(role).values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


@pytest.fixture(scope="module", params=ADAPTERS.values(), ids=list(ADAPTERS))
def start(request: pytest.FixtureRequest, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained adapter with dropout."""
    folder = tmp_path_factory.mktemp("start")
    policy = Policy.load(tiny_model, adapter=request.param)
    disturb(policy, "policy")
    policy.save(folder)
    return folder


def without_dropout(start: Path, folder: Path) -> Path:
    """The same adapter, its dropout set to 0 in the file."""
    folder.mkdir()
    for file in start.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["lora_dropout"] == 0.5
    base = str((start / config["base_model_name_or_path"]).resolve())
    changed = {"lora_dropout": 0.0, "base_model_name_or_path": base}
    (folder / "adapter_config.json").write_text(json.dumps(config | changed))
    return folder


def ask(policy: Policy, role: Any) -> torch.Tensor:
    with policy.use(role):
        return policy.values(BATCH) if role in policy.roles.heads else policy.logprobs(BATCH).logp_PKT


class TestDropout:
    def test_it_is_off_wherever_no_gradient_is_recorded(self, start: Path, tiny_model: Path) -> None:
        """Every role equals the same one of an adapter without dropout, also roles added after an update."""
        policy = Policy.load(tiny_model, start=start)
        beside = start.with_name(f"{start.name}-without-dropout")  # its base is named by a relative path
        plain = Policy.load(tiny_model, start=without_dropout(start, beside))
        assert not any("was trained on" in note for note in policy.notes)
        assert policy.notes == plain.notes  # the probes of the loading are not disturbed either
        policy.logprobs(BATCH).logp_PKT.sum().backward()
        for either in (policy, plain):
            torch.manual_seed(0)  # of the reward's head
            either.require(["reward", "value"])
            for seed, role in enumerate(("reward", "value")):
                disturb(either, role, seed)
        ask(policy, "value").sum().backward()
        for role in ROLES:
            with torch.no_grad():
                assert torch.equal(ask(policy, role), ask(plain, role)), role
        assert torch.equal(ask(policy, "reference"), ask(plain, "reference"))  # never, not even with gradients

    def test_it_is_on_where_one_is_recorded(self, start: Path, tiny_model: Path) -> None:
        policy = Policy.load(tiny_model, start=start)
        policy.require(["reward", "value"])
        for role in ("reward", "value"):
            disturb(policy, role)
        for role in ("policy", "reward", "value"):
            assert not torch.equal(ask(policy, role), ask(policy, role)), role
            with policy.dropout(False):
                assert torch.equal(ask(policy, role), ask(policy, role)), role
            assert not torch.equal(ask(policy, role), ask(policy, role)), role

    @pytest.mark.parametrize("reference", ["live", "cached"])
    def test_the_first_loss_of_dpo_is_ln_2(
        self, reference: Any, start: Path, tiny_model: Path, pair_rows: list[dict[str, str]], tmp_path: Path
    ) -> None:
        """Policy and reference are one model before the first step: −log σ(0)."""
        policy = Policy.load(tiny_model, start=start)
        config = TrainerConfig(steps=1, batch_size=8, max_length=200, save_steps=None)
        result = Trainer(policy, tmp_path / "run", config).fit(
            DPO(reference=reference), Preferences.from_rows(pair_rows[:8])
        )
        first = next(record for record in read_records(result.folder / "metrics.jsonl") if "train/loss" in record)
        assert first["train/loss"] == pytest.approx(0.6931471805599453, abs=1e-6)
        assert first["train/rewards/margins"] == 0

    @pytest.mark.slow
    def test_the_first_loss_of_dpo_on_a_real_model(self, shared: Path, tmp_path: Path) -> None:
        """SmolLM2-135M, an adapter that PEFT alone made, dropout .1."""
        model = tmp_path / "smollm2"
        made = subprocess.run([sys.executable, str(shared / "models" / "smollm2" / "make.py"), str(model)], check=False)
        if made.returncode != 0:
            pytest.skip("the package with the model cannot be had")
        config = LoraConfig(task_type=TaskType.CAUSAL_LM, r=8, lora_dropout=0.1, target_modules="all-linear")
        network: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.02)
        network.save_pretrained(str(tmp_path / "start"))
        policy = Policy.load(model, start=tmp_path / "start")
        rows = [{"prompt": "What is 2 + 2?", "chosen": "It is 4.", "rejected": "I think it is 5, or 6."}] * 2
        trainer = TrainerConfig(steps=1, batch_size=2, max_length=128, save_steps=None)
        result = Trainer(policy, tmp_path / "run", trainer).fit(DPO(), Preferences.from_rows(rows))
        first = next(record for record in read_records(result.folder / "metrics.jsonl") if "train/loss" in record)
        assert first["train/loss"] == pytest.approx(0.6931471805599453, abs=1e-4)

    def test_the_ratio_of_ppo_is_1(
        self, start: Path, tiny_model: Path, pair_rows: list[dict[str, str]], tmp_path: Path
    ) -> None:
        """At learning rate 0 in every minibatch: the update computes what the roll-out did."""
        policy = Policy.load(tiny_model, start=start)
        policy.require(["reward"])
        disturb(policy, "reward")
        config = TrainerConfig(steps=4, batch_size=8, max_length=200, save_steps=None, learning_rate=0.0)
        method = PPO(max_new_tokens=8, epochs=2, minibatches=2, value_init="reward")
        result = Trainer(policy, tmp_path / "run", config).fit(method, Preferences.from_rows(pair_rows[:8]))
        steps = [record for record in read_records(result.folder / "metrics.jsonl") if "train/val/ratio" in record]
        assert len(steps) == 4
        for step in steps:
            assert step["train/val/ratio"] == pytest.approx(1, abs=1e-6)
            assert step["train/policy/approxkl"] == pytest.approx(0, abs=1e-10)  # float32's rounding, squared
        assert steps[0]["rollout/objective/kl"] == 0

    @pytest.mark.parametrize("method", [SFT(), RewardModel()], ids=lambda m: type(m).__name__)
    def test_methods_that_compare_nothing_train_with_it(
        self, method: Any, tiny_model: Path, pair_rows: list[dict[str, str]], tmp_path: Path
    ) -> None:
        ends: list[torch.Tensor] = []
        for dropout in (0.0, 0.5):
            policy = Policy.load(tiny_model, adapter=Adapter(r=4, dropout=dropout))
            config = TrainerConfig(steps=2, batch_size=8, max_length=200, save_steps=None, learning_rate=1e-2)
            Trainer(policy, tmp_path / str(dropout), config).fit(method, Preferences.from_rows(pair_rows[:8]))
            ends.append(torch.cat([p.flatten() for p in policy.roles.parameters(method.trains[0]).values()]))
        assert not torch.equal(*ends)


class TestGradients:
    @pytest.mark.parametrize("kind", ["new", "start", "full"])
    def test_the_reference_has_none_inside_use(self, kind: str, tiny_model: Path, start: Path) -> None:
        policy = Policy.load(
            tiny_model, adapter=None if kind == "full" else Adapter(), start=start if kind == "start" else None
        )
        policy.require(["reference"])
        with policy.use("reference"):
            assert not any(p.requires_grad for p in policy.roles.weights("reference").values())
            assert not policy.logprobs(BATCH).logp_PKT.requires_grad
        assert all(p.requires_grad for p in policy.roles.weights("policy").values())
        assert not any(p.requires_grad for p in policy.roles.weights("reference").values())

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_trained_weights_are_float32(self, dtype: str, start: Path, tiny_model: Path) -> None:
        policy = Policy.load(tiny_model, start=start, dtype=dtype)
        policy.require(["reward", "value"])
        for role in ROLES:
            assert {p.dtype for p in policy.roles.parameters(role).values()} == {torch.float32}


class TestNames:
    def test_a_layer_with_the_name_of_a_role(self, tiny_model: Path) -> None:
        """``value`` is the name of a layer in several architectures; only LoRA's own part of a name is the role's."""
        policy = Policy.load(tiny_model)
        attention: Any = policy.model.get_submodule("model.layers.0.self_attn")
        expected = len(policy.roles.weights("policy"))
        attention.value = attention.v_proj  # an alias, found first under neither name twice
        policy.require(["value"])
        assert policy.roles.weights("value").keys() == policy.roles.weights("policy").keys()
        assert len(policy.roles.weights("value")) == expected


class TestHeads:
    @pytest.mark.parametrize("adapter", [Adapter(r=4), None], ids=["lora", "full"])
    def test_mean_and_deviation_are_read_back_and_copied(
        self, adapter: Adapter | None, tiny_model: Path, tmp_path: Path
    ) -> None:
        """(w·h − mean) / std: a role that lost either gives other scalars."""
        policy = Policy.load(tiny_model, adapter=adapter)
        policy.require(["reward", "value"])
        disturb(policy, "reward")
        policy.roles.heads["reward"].mean, policy.roles.heads["reward"].std = 0.75, 2.5
        with torch.no_grad():
            expected = ask(policy, "reward")
            policy.roles.heads["reward"].mean, policy.roles.heads["reward"].std = 0.0, 1.0
            mask_PKT = BATCH.mask_PKT
            torch.testing.assert_close(expected[mask_PKT], ((ask(policy, "reward") - 0.75) / 2.5)[mask_PKT])
            policy.roles.heads["reward"].mean, policy.roles.heads["reward"].std = 0.75, 2.5
            policy.roles.save("reward", tmp_path / "reward")
            policy.roles.copy("reward", "value")
            assert torch.equal(ask(policy, "value"), expected)
            other = Policy.load(tiny_model, adapter=adapter)
            other.require(["reward"])
            other.roles.load("reward", tmp_path / "reward")
            assert torch.equal(ask(other, "reward"), expected)

    def test_an_adapter_without_a_head_is_no_reward_model(self, tiny_policy: Policy, tmp_path: Path) -> None:
        tiny_policy.save(tmp_path)
        tiny_policy.require(["reward"])
        with pytest.raises(UserError, match="has no scalar head, so it is no reward model"):
            tiny_policy.roles.load("reward", tmp_path)


class TestCanLoad:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("r", 5),
            ("lora_alpha", 9),
            ("use_rslora", True),
            ("use_dora", True),
            ("rank_pattern", {"q_proj": 2}),
            ("alpha_pattern", {"q_proj": 2}),
            ("target_modules", ["q_proj"]),
            ("target_modules", "down_proj|gate_proj"),
            ("exclude_modules", ["q_proj"]),
            ("layers_to_transform", [0]),
            ("layers_pattern", "blocks"),
            ("fan_in_fan_out", True),
            ("base_model_name_or_path", "another/base"),
        ],
    )
    def test_each_setting_counts(self, name: str, value: Any, tiny_policy: Policy, tmp_path: Path) -> None:
        tiny_policy.save(tmp_path)
        assert tiny_policy.roles.can_load(tmp_path)
        file = tmp_path / "adapter_config.json"
        config = json.loads(file.read_text())
        assert config[name] != value
        file.write_text(json.dumps(config | {name: value}))
        assert not tiny_policy.roles.can_load(tmp_path)

    def test_a_folder_without_an_adapter(self, tiny_policy: Policy, tmp_path: Path) -> None:
        assert not tiny_policy.roles.can_load(tmp_path)


def test_a_full_copy_added_late_begins_as_the_policy_did(tiny_model: Path) -> None:
    policy = Policy.load(tiny_model, adapter=None)
    policy.require(["reference"])
    begin = {name: parameter.detach().clone() for name, parameter in policy.roles.weights("policy").items()}
    disturb(policy, "policy")
    policy.require(["value"])
    value: dict[str, nn.Parameter] = policy.roles.weights("value")
    assert value.keys() == begin.keys()
    assert all(torch.equal(value[name], begin[name]) for name in begin)
    assert all(parameter.requires_grad for parameter in value.values())


class TestAReferenceOfItsOwn:
    """``model.reference``: an adapter, the base, or a whole model, and roles added later begin as the policy does."""

    @pytest.fixture
    def saved(self, tiny_model: Path, tmp_path: Path) -> Path:
        """Two adapters of the base, and two whole models."""
        for number in (1, 2):
            policy = Policy.load(tiny_model, adapter=Adapter(r=2))
            disturb(policy, "policy", seed=number)
            policy.roles.save("policy", tmp_path / f"adapter-{number}")
            whole = Policy.load(tiny_model, adapter=None)
            disturb(whole, "policy", seed=number)
            whole.save(tmp_path / f"whole-{number}")
        return tmp_path

    def same(self, policy: Policy, role: Any, other: Policy) -> bool:
        ours, theirs = policy.roles.weights(role), other.roles.weights("policy")
        return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)

    @pytest.mark.parametrize("starts", [True, False])
    def test_another_adapter(self, starts: bool, saved: Path, tiny_model: Path) -> None:
        start = saved / "adapter-1" if starts else None
        settings: Any = {"start": start, "adapter": Adapter() if starts else Adapter(r=2)}
        policy = Policy.load(tiny_model, reference=saved / "adapter-2", **settings)
        assert self.same(policy, "reference", Policy.load(tiny_model, start=saved / "adapter-2"))
        assert not any(p.requires_grad for p in policy.roles.weights("reference").values())
        if starts:
            begun = Policy.load(tiny_model, start=start)
            policy.require(["anchor"])
            assert all(self.same(policy, role, begun) for role in ("policy", "anchor"))

    def test_the_base(self, saved: Path, tiny_model: Path) -> None:
        policy = Policy.load(tiny_model, start=saved / "adapter-1", reference=tiny_model)
        assert policy.roles.weights("reference") == {}
        assert self.same(policy, "policy", Policy.load(tiny_model, start=saved / "adapter-1"))

    def test_a_whole_model(self, saved: Path) -> None:
        policy = Policy.load(saved / "whole-1", adapter=None, reference=saved / "whole-2")
        policy.require(["reference", "value"])
        begun = Policy.load(saved / "whole-1", adapter=None)
        assert self.same(policy, "reference", Policy.load(saved / "whole-2", adapter=None))
        assert all(self.same(policy, role, begun) for role in ("policy", "value"))
        assert not any(p.requires_grad for p in policy.roles.weights("reference").values())
        assert Policy.load(saved / "whole-1", adapter=None, reference=saved / "whole-1").roles.names == ("policy",)

    def test_what_it_cannot_be(self, saved: Path, tiny_model: Path) -> None:
        with pytest.raises(UserError, match=r"model\.reference=.*whole-2: no PEFT adapter there"):
            Policy.load(tiny_model, reference=saved / "whole-2")
        with pytest.raises(UserError, match=r"model\.reference=.*adapter-2"):
            Policy.load(saved / "whole-1", adapter=None, reference=saved / "adapter-2")


@pytest.mark.parametrize("role", ["policy", "reward"])
@pytest.mark.parametrize("change", [{"num_hidden_layers": 3}, {"num_hidden_layers": 1}, {"intermediate_size": 40}])
@pytest.mark.filterwarnings("ignore")
def test_a_full_model_of_another_shape_is_refused(
    change: dict[str, int], role: Any, tiny_model: Path, tmp_path: Path
) -> None:
    """A tensor too many, one too few, or of another size: transformers would load the rest."""
    config = AutoConfig.from_pretrained(tiny_model, **change)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "base")
    other, policy = (Policy.load(model, adapter=None) for model in (tmp_path / "base", tiny_model))
    for either in (other, policy):
        either.require(["reward"])
    other.roles.save(role, tmp_path / "saved")
    with pytest.raises(UserError, match="its tensors do not fit this model; it was saved from another one"):
        policy.roles.load(role, tmp_path / "saved")


def test_what_a_role_cannot_do(tiny_policy: Policy, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the reference is the base model itself; there is no adapter to save"):
        tiny_policy.roles.save("reference", tmp_path)
    assert not list(tmp_path.iterdir())
    tiny_policy.save(tmp_path)
    full = Policy.load(tiny_model, adapter=None)
    assert tiny_policy.roles.can_load(tmp_path)
    assert not full.roles.can_load(tmp_path)
    message = r"the policy has no value role \(it has policy\); add it with require\(\['value'\]\)"
    for ask in (
        lambda: full.roles.activate("value"),
        lambda: full.roles.weights("value"),
        lambda: full.roles.save("value", tmp_path / "new"),
        lambda: full.roles.load("value", tmp_path),
    ):
        with pytest.raises(UserError, match=message):
            ask()
    assert full.role == "policy"
    assert not (tmp_path / "new").exists()
