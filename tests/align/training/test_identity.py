"""The identity of a run: every change of what is learnt is named once, and nothing else is.

Each case is one change of a small run; the expected words follow from the change alone.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from align import Policy, Preferences, TrainerConfig
from align.errors import UserError
from align.evaluation.evaluator import Evaluator
from align.method.base import Method
from align.sampling.params import SamplingParams
from align.settings.adapter import Adapter
from align.system.identity import Identity, differences
from align.system.randomness import seed_everything
from align.training import identity as module
from align.training.feed import tokenize_for
from align.training.identity import FOLLOWS, chooses_best, run_identity, trainer_settings
from methods import DPO, GRPO, PPO, RRHF, SFT, SLiC
from reward import Length, RewardModel

Rows = list[dict[str, str]]
OFFLINE = [SFT(), DPO(), RRHF(), SLiC(), RewardModel()]
ONLINE = [PPO(max_new_tokens=8, ptx_coef=1.0), GRPO(max_new_tokens=8)]


class Setting:
    """A run as its parts; ``identity`` is that with some of them changed."""

    def __init__(self, model: Path, rows: Rows) -> None:
        self.model, self.rows = model, rows

    def identity(
        self,
        method: Method,
        *,
        adapter: Adapter | None = Adapter(r=4),
        model: dict[str, Any] | None = None,
        rows: Rows | None = None,
        mix: Rows | None = None,
        maximum: int = 10,
        world_size: int = 1,
        evaluated: dict[str, Any] | None = None,
        edit: Any = None,
        **config: Any,
    ) -> Identity:
        policy = Policy.load(str(self.model), adapter=adapter, seed=config.get("seed", 0), **(model or {}))
        seed_everything(config.get("seed", 0))  # as the trainer, before roles are added
        policy.require(method.roles)
        if edit is not None:
            edit(policy)
        settings = TrainerConfig(**{"steps": 6, "max_length": 200, **config})
        data = Preferences.from_rows(rows or self.rows)
        evaluator = None
        if evaluated is not None:
            sampling = SamplingParams(max_new_tokens=8, temperature=evaluated.get("temperature", 0.7))
            scorers = (Length(maximum=evaluated.get("maximum", 10)),)
            held = Preferences.from_rows(self.rows[: evaluated.get("prompts", 4)])
            evaluator = Evaluator.from_preferences(
                policy, held, None, max_length=200, sampling=sampling, scorers=scorers
            )
        return run_identity(
            method,
            settings,
            policy,
            tokenize_for(method, data, policy.tokenizer, settings.max_length),
            scorer=Length(maximum=maximum) if method.rollout is not None else None,
            mix=None if mix is None else Preferences.from_rows(mix),
            evaluator=evaluator,
            world_size=world_size,
        )


@pytest.fixture(scope="module")
def setting(tiny_model: Path, pair_rows: Rows) -> Setting:
    return Setting(tiny_model, pair_rows[:12])


@pytest.fixture(scope="module")
def before(setting: Setting) -> Callable[[Method], Identity]:
    """The run of a method that the changes are made to."""
    return cache(lambda method: setting.identity(method, **GIVEN))


def named(before: Identity, after: Identity) -> list[str]:
    return differences(before.learnt, after.learnt, FOLLOWS)


def move(policy: Policy) -> None:
    weight: Any = policy.model.get_input_embeddings().weight.data
    weight[7, 8] += 1


def rename(policy: Policy) -> None:
    policy.tokenizer.chat_template = str(policy.tokenizer.chat_template).replace("<|end|>", "<|end|> ")


def respell(policy: Policy) -> None:
    policy.tokenizer.add_tokens(["What"])


def quantize(policy: Policy) -> None:
    policy.model.is_loaded_in_4bit = True


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"adapter": Adapter(r=8, alpha=8)}, "adapter.r is 4 in the run and 8 now"),
    ({"adapter": Adapter(r=4, alpha=16)}, "adapter.alpha is 8 in the run and 16 now"),
    ({"adapter": Adapter(r=4, dropout=0.2)}, "adapter.dropout is 0.0 in the run and 0.2 now"),
    ({"adapter": Adapter(r=4, rslora=True)}, "adapter.rslora is false in the run and true now"),
    ({"adapter": Adapter(r=4, dora=True)}, "adapter.dora is false in the run and true now"),
    ({"adapter": Adapter(r=4, targets=("q_proj",))}, "adapter.targets is"),
    ({"adapter": None, "learning_rate": 1e-3}, "adapter is set in the run and none now"),
    ({"model": {"dtype": "bfloat16"}}, "model.dtype is float32 in the run and bfloat16 now"),
    ({"edit": quantize}, "model.quantization is not set in the run and 4bit now"),
    ({"edit": move}, "the start model is not the same"),
    ({"edit": rename}, "the chat template is not the same"),
    ({"edit": respell}, "the tokenizer is not the same"),
    ({"rows": 1}, "data.train is not the same"),
    ({"learning_rate": 2e-3}, "trainer.learning_rate is 0.001 in the run and 0.002 now"),
    ({"batch_size": 2}, "trainer.batch_size is 4 in the run and 2 now"),
    ({"steps": 7}, "trainer.steps is 6 in the run and 7 now"),
    ({"seed": 1}, "trainer.seed is 0 in the run and 1 now"),
    ({"max_length": 190}, "trainer.max_length is 200 in the run and 190 now"),
    ({"precision": "bfloat16"}, "trainer.precision is float32 in the run and bfloat16 now"),
    ({"optimizer": "sgd"}, "trainer.optimizer is adamw in the run and sgd now"),
    ({"schedule": "cosine"}, "trainer.schedule is linear in the run and cosine now"),
    ({"warmup": 0.5}, "trainer.warmup is 0.0 in the run and 0.5 now"),
    ({"weight_decay": 0.1}, "trainer.weight_decay is 0.0 in the run and 0.1 now"),
    ({"max_grad_norm": 0.5}, "trainer.max_grad_norm is 1.0 in the run and 0.5 now"),
    ({"betas": (0.8, 0.999)}, "trainer.betas is [0.9, 0.999] in the run and [0.8, 0.999] now"),
    ({"world_size": 2}, "the number of processes is 1 in the run and 2 now"),
]
GIVEN: dict[str, Any] = {"learning_rate": 1e-3, "batch_size": 4, "schedule": "linear", "warmup": 0.0}


@pytest.mark.parametrize("method", [DPO(), PPO(max_new_tokens=8)], ids=["dpo", "ppo"])
@pytest.mark.parametrize(("change", "expected"), CHANGES, ids=[expected.split(" is ")[0] for _, expected in CHANGES])
def test_a_change_is_named_once(
    method: Method, change: dict[str, Any], expected: str, setting: Setting, before: Callable[[Method], Identity]
) -> None:
    if change.get("rows"):
        change = {**change, "rows": [*setting.rows[1:], setting.rows[0] | {"chosen": "Yes.", "prompt": "Is it?"}]}
    (clause,) = named(before(method), setting.identity(method, **{**GIVEN, **change}))
    assert clause.startswith(expected)


@pytest.mark.parametrize("method", [*OFFLINE, *ONLINE], ids=lambda method: type(method).__name__)
def test_nothing_changed_is_the_same_run(method: Method, setting: Setting) -> None:
    free = {"keep_checkpoints": 9, "log_steps": 2, "save_steps": None, "samples": 0}
    rounding = {"tokens_per_microbatch": 100, "gradient_checkpointing": True}
    before, after = setting.identity(method), setting.identity(method, **free, **rounding)
    assert named(before, after) == []
    assert differences(before.computed, after.computed) == [
        "trainer.tokens_per_microbatch is 8192 in the run and 100 now",
        "trainer.gradient_checkpointing is false in the run and true now",
    ]
    spelled = {"learning_rate": method.optimization.learning_rate, "batch_size": method.optimization.batch_size}
    assert named(before, setting.identity(method, **spelled, adapter=Adapter(r=4, alpha=8))) == []


@pytest.mark.parametrize("method", ONLINE, ids=lambda method: type(method).__name__)
def test_the_reward_of_an_online_method_counts(method: Method, setting: Setting) -> None:
    (clause,) = named(setting.identity(method), setting.identity(method, maximum=20))
    assert clause == "reward.maximum is 10 in the run and 20 now"


def test_the_reward_role_counts_where_it_is_asked(tiny_policy: Policy, pair_rows: Rows) -> None:
    method, config = PPO(max_new_tokens=8), TrainerConfig(max_length=200)
    tiny_policy.require((*method.roles, "reward"))
    data = tokenize_for(method, Preferences.from_rows(pair_rows[:4]), tiny_policy.tokenizer, 200)
    parts: dict[str, Any] = {"scorer": None, "mix": None, "evaluator": None, "world_size": 1}
    before = run_identity(method, config, tiny_policy, data, **parts)
    tiny_policy.roles.heads["reward"].mean = 0.5
    assert named(before, run_identity(method, config, tiny_policy, data, **parts)) == ["reward.weights is not the same"]


def test_demonstrations_count_where_they_are_mixed_in(setting: Setting) -> None:
    mixing, plain, rows = ONLINE[0], ONLINE[1], setting.rows
    none, some, others = (setting.identity(mixing, mix=mix) for mix in (None, rows[:3], rows[3:]))
    assert named(none, some) == ["data.mix is not set in the run and set now"]
    assert named(some, others) == ["data.mix is not the same"]
    assert named(setting.identity(plain), setting.identity(plain, mix=rows)) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"eval_steps": 3}, "trainer.eval_steps is 2 in the run and 3 now"),
        ({"eval_steps": None}, "trainer.eval_steps is 2 in the run and not set now"),
        ({"evaluated": {"temperature": 1.0}}, "evaluation.sampling.temperature is 0.7 in the run and 1.0 now"),
        ({"evaluated": {"maximum": 20}}, "evaluation.scorers.length.maximum is 10 in the run and 20 now"),
        ({"evaluated": {"prompts": 5}}, "evaluation.prompts is not the same"),
    ],
)
def test_the_evaluation_counts_where_it_chooses_the_best_policy(
    change: dict[str, Any], expected: str, setting: Setting
) -> None:
    given: dict[str, Any] = {"eval_steps": 2, "evaluated": {}}
    rated, plain = ONLINE[1], DPO()
    assert named(setting.identity(rated, **given), setting.identity(rated, **{**given, **change})) == [expected]
    assert named(setting.identity(plain, **given), setting.identity(plain, **{**given, **change})) == []


def settings_of(method: Method) -> list[str]:
    import dataclasses

    return [field.name for field in dataclasses.fields(method)]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("method", [*OFFLINE, *ONLINE], ids=lambda method: type(method).__name__)
def test_every_hyper_parameter_counts(method: Method, setting: Setting) -> None:
    learnt = setting.identity(method).learnt["method"]
    assert set(learnt) == {"name", *settings_of(method)}


def test_defaults_of_the_method_stand_where_nothing_is_given() -> None:
    """Of adapters and of all parameters; epochs only where the steps are not given."""
    method = DPO()
    learnt = trainer_settings(method, TrainerConfig(), adapters=True)
    given = {"learning_rate": 1e-4, "epochs": 1, "steps": None, "batch_size": 16, "schedule": "cosine", "warmup": 0.1}
    assert {name: learnt[name] for name in given} == given
    assert trainer_settings(method, TrainerConfig(), adapters=False)["learning_rate"] == 1e-6
    assert trainer_settings(method, TrainerConfig(steps=3), adapters=True)["epochs"] is None
    zero = trainer_settings(method, TrainerConfig(learning_rate=0.0, warmup=0.0), adapters=True)
    assert (zero["learning_rate"], zero["warmup"]) == (0.0, 0.0)
    free = {"keep_checkpoints", "log_steps", "save_steps", "samples"}
    free |= {"tokens_per_microbatch", "gradient_checkpointing", "sharding"}
    assert {field.name for field in fields(TrainerConfig)} - set(learnt) == free
    assert learnt["eval_steps"] is None


@pytest.mark.parametrize(("eval_steps", "chooses"), [(None, False), (2, True)])
def test_evaluations_choose_only_where_there_are_some_and_the_method_rates_them(
    eval_steps: int | None, chooses: bool
) -> None:
    config = TrainerConfig(eval_steps=eval_steps)
    assert chooses_best(PPO(), config) is chooses
    assert chooses_best(DPO(), config) is False
    assert trainer_settings(PPO(), config, adapters=True)["eval_steps"] == eval_steps


@pytest.mark.parametrize(
    ("ours", "theirs", "value"),
    [
        ("r", "r", 3),
        ("alpha", "lora_alpha", 3),
        ("dropout", "lora_dropout", 0.25),
        ("rslora", "use_rslora", True),
        ("dora", "use_dora", True),
        ("bias", "bias", "all"),
        ("rank_pattern", "rank_pattern", {"q_proj": 3}),
        ("alpha_pattern", "alpha_pattern", {"q_proj": 3}),
        ("modules_to_save", "modules_to_save", ["lm_head"]),
        ("layers_to_transform", "layers_to_transform", [1]),
        ("targets", "target_modules", {"q_proj"}),
    ],
)
def test_every_setting_of_an_adapter_counts(
    ours: str, theirs: str, value: Any, tiny_policy: Policy, pair_rows: Rows
) -> None:
    """Also of one that was made elsewhere. Targets have no order."""
    found: list[Identity] = []
    data = tokenize_for(DPO(), Preferences.from_rows(pair_rows[:2]), tiny_policy.tokenizer, 200)
    lora: Any = tiny_policy.roles.peft_model.peft_config["policy"]  # pyright: ignore
    parts: dict[str, Any] = {"scorer": None, "mix": None, "evaluator": None, "world_size": 1}
    before = getattr(lora, theirs)
    try:
        for setting in (before, value):
            setattr(lora, theirs, setting)
            found.append(run_identity(DPO(), TrainerConfig(max_length=200), tiny_policy, data, **parts))
    finally:
        setattr(lora, theirs, before)
    clauses = differences(found[0].learnt, found[1].learnt)
    assert clauses
    assert all(clause.startswith(f"adapter.{ours}") for clause in clauses)
    assert found[0].learnt["adapter"]["targets"] == sorted(
        before if theirs == "target_modules" else lora.target_modules
    )


def test_a_role_that_is_not_asked_is_no_part_of_the_run(tiny_policy: Policy, pair_rows: Rows) -> None:
    """A reward role beside DPO, and demonstrations that nothing mixes in; addresses with a key are not written."""
    tiny_policy.require(("reward",))
    data = tokenize_for(DPO(), Preferences.from_rows(pair_rows[:2]), tiny_policy.tokenizer, 200)
    config, mix = TrainerConfig(max_length=200), Preferences.from_rows(pair_rows[:1])
    learnt = run_identity(DPO(), config, tiny_policy, data, scorer=None, mix=mix, evaluator=None, world_size=1).learnt
    assert learnt["reward"] is None
    assert learnt["data"]["mix"] is None
    assert learnt["evaluation"] is None


def test_secrets_are_not_written(tiny_policy: Policy, pair_rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "scorer_identity", lambda _: {"name": "judge", "api_key": "sesame"})
    data = tokenize_for(DPO(), Preferences.from_rows(pair_rows[:2]), tiny_policy.tokenizer, 200)
    parts: dict[str, Any] = {"scorer": Length(maximum=10), "mix": None, "evaluator": None, "world_size": 1}
    learnt = run_identity(DPO(), TrainerConfig(max_length=200), tiny_policy, data, **parts).learnt
    assert learnt["reward"]["name"] == "judge"
    assert "sesame" not in str(learnt)


def test_all_that_rounds_is_said(tiny_policy: Policy, pair_rows: Rows) -> None:
    data = tokenize_for(DPO(), Preferences.from_rows(pair_rows[:2]), tiny_policy.tokenizer, 200)
    parts: dict[str, Any] = {"scorer": None, "mix": None, "evaluator": None, "world_size": 1}
    config = TrainerConfig(max_length=200, tokens_per_microbatch=77, gradient_checkpointing=True)
    computed = run_identity(DPO(), config, tiny_policy, data, **parts).computed
    assert computed["trainer"] == {"tokens_per_microbatch": 77, "gradient_checkpointing": True, "sharding": "none"}
    assert computed["model"] == {"layout": tiny_policy.layout, "packed": True, "attention": "packed"}
    assert (computed["the device"], computed["python"]) == ("cpu", platform.python_version())
    libraries = {"torch", "transformers", "peft", "trl", "accelerate", "numpy", "tokenizers", "liger-kernel"}
    installed = {name for name in libraries if find_spec(name.replace("-", "_"))}
    assert {name: computed.get(name) for name in installed} == {name: version(name) for name in installed}
    assert {computed[name] for name in libraries - installed} <= {"not installed"}
    assert set(computed) == {"trainer", "model", "the device", "python"} | libraries


@pytest.mark.parametrize(
    ("part", "cause"),
    [
        *(("the start model", c) for c in ("model.dtype", "adapter.r", "adapter", "trainer.seed", "reward.maximum")),
        ("the tokenizer", "the chat template"),
        *(("the tokens of the data", c) for c in ("data.train", "the tokenizer", "the chat template")),
        *(("the tokens of the data", c) for c in ("trainer.max_length", "method.name")),
        *(("evaluation.prompts", c) for c in ("trainer.eval_steps", "the tokenizer", "the chat template")),
        *(("evaluation.prompts", c) for c in ("trainer.max_length", "reward.maximum")),
    ],
)
def test_a_part_that_follows_from_another_is_not_named_beside_it(part: str, cause: str) -> None:
    assert differences({part: 1, cause: 1}, {part: 2, cause: 2}, FOLLOWS) == [f"{cause} is 1 in the run and 2 now"]
    other = "trainer.learning_rate"  # explains none of them
    assert len(differences({part: 1, other: 1}, {part: 2, other: 2}, FOLLOWS)) == 2


def test_a_resumed_run_says_what_is_computed_otherwise(
    tiny_model: Path,
    pair_rows: Rows,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from align import Trainer

    def run(method: Method, adapter: Adapter, **settings: Any) -> None:
        config = TrainerConfig(steps=2, batch_size=4, max_length=200, save_steps=1, **settings)
        trainer = Trainer(Policy.load(str(tiny_model), adapter=adapter), tmp_path / "run", config, if_exists="resume")
        trainer.fit(method, Preferences.from_rows(pair_rows))

    run(DPO(), Adapter(r=4))
    import shutil

    shutil.rmtree(tmp_path / "run" / "final")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000002")
    monkeypatch.setattr("platform.python_version", lambda: "2.7")
    with pytest.raises(UserError, match=r"resumed: adapter\.dropout is 0\.0 in the run and 0\.2 now\. Give"):
        run(DPO(), Adapter(r=4, dropout=0.2))
    capsys.readouterr()
    run(DPO(), Adapter(r=4), tokens_per_microbatch=300)
    said = capsys.readouterr().out
    assert (
        "From here on results may differ in rounding: trainer.tokens_per_microbatch is 8192 in the run and 300" in said
    )
    assert "in the run and 2.7 now" in said
    with pytest.raises(UserError, match=r"adapter\.dropout is"):  # also of a finished run
        run(DPO(), Adapter(r=4, dropout=0.2))


def test_another_schedule_is_one_difference() -> None:
    """A run with a constant rate has no length to compare, one with a linear rate has."""
    before, after = (
        {"trainer": trainer_settings(DPO(), TrainerConfig(steps=4, warmup=0, schedule=schedule), adapters=True)}
        for schedule in ("constant", "linear")
    )
    assert differences(before, after, FOLLOWS) == ["trainer.schedule is constant in the run and linear now"]
