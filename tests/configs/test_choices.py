"""The settings of each choice written by hand, beside the defaults of the dataclasses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from align.cli.parse.compose import compose_run
from align.settings.adapter import Adapter
from align.settings.config import DataConfig, ModelConfig

CONFIGS = Path(__file__).parents[2] / "configs"


def composed(*words: str) -> Any:
    return compose_run(CONFIGS, list(words))


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("world", DataConfig(train="world", heldout="world/heldout")),
        ("hh-rlhf", DataConfig(train="Anthropic/hh-rlhf", heldout="Anthropic/hh-rlhf")),
        (
            "ultrafeedback",
            DataConfig(
                train="HuggingFaceH4/ultrafeedback_binarized",
                heldout="HuggingFaceH4/ultrafeedback_binarized",
                split="train_prefs",
                heldout_split="test_prefs",
            ),
        ),
    ],
)
def test_data(choice: str, expected: DataConfig) -> None:
    assert composed(f"data={choice}").data == expected


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("world-base", ModelConfig(name="world/base")),
        ("world", ModelConfig(name="world/base", start="world/sft")),
        ("qwen3-0.6b", ModelConfig(name="Qwen/Qwen3-0.6B")),
        ("qwen3-4b", ModelConfig(name="Qwen/Qwen3-4B-Instruct-2507", dtype="bfloat16")),
        ("smollm2-135m", ModelConfig(name="HuggingFaceTB/SmolLM2-135M-Instruct")),
        ("llama-3.2-1b", ModelConfig(name="meta-llama/Llama-3.2-1B-Instruct", dtype="bfloat16")),
    ],
)
def test_models(choice: str, expected: ModelConfig) -> None:
    run = composed(f"model={choice}", "method=sft")
    assert run.model == expected
    embedded = choice.startswith("world")
    assert (run.trainer.max_length, run.evaluation.prompts) == ((512, 400) if embedded else (1024, 64))
    assert run.evaluation.max_new_tokens == (64 if embedded else 128)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("lora", Adapter()), ("rslora", Adapter(rslora=True)), ("dora", Adapter(dora=True)), ("none", None)],
)
def test_adapters(choice: str, expected: Adapter | None) -> None:
    assert composed(f"adapter={choice}", "model.start=null").adapter == expected


TAGS: dict[str, Any] = {"thinking_tags": ["think", "thinking", "thought", "reasoning"], "answer_tags": ["answer"]}
LONGEST: dict[str, Any] = {"maximum": 40, "unit": "tokens", "tokenizer": "world/base"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["reward=world"], {"scorer": "true_reward"}),
        (["reward=math"], {"scorer": "math", **TAGS}),
        (["reward=ifeval"], {"scorer": "ifeval", **TAGS}),
        (["reward=token_f1", "reward.answer_tags=[]"], {"scorer": "token_f1", **TAGS, "answer_tags": []}),
        (["reward=tag_count"], {"scorer": "tag_count", "tags": ["think", "answer"]}),
        (["reward=soft_overlong", "method.max_new_tokens=40"], {"scorer": "soft_overlong", "buffer": None, **LONGEST}),
        (
            ["reward=cosine_length", "method.max_new_tokens=40"],
            {
                **{"scorer": "cosine_length", "base": {"scorer": "math"}, **LONGEST},
                **{"right_short": 1.0, "right_long": 0.5, "wrong_short": -1.0, "wrong_long": -0.5},
            },
        ),
        (["reward=function", "reward.function=a.py:f"], {"scorer": "function", "function": "a.py:f"}),
        (["reward=ranker", "reward.model=a/b"], {"scorer": "ranker", "model": "a/b", "dtype": "float32"}),
        (
            ["reward=http", "reward.url=http://localhost:1"],
            {
                **{"scorer": "http", "url": "http://localhost:1", "protocol": "align", "token_env": None},
                **{"timeout": 120.0, "max_answer_bytes": 2**20},
            },
        ),
        (
            ["reward=model", "reward.model=a/b"],
            {
                **{"scorer": "reward_model", "model": "a/b", "chat_template": None, "revision": None},
                **{"dtype": "float32", "max_length": 2048},
            },
        ),
    ],
)
def test_rewards(words: list[str], expected: dict[str, Any]) -> None:
    assert composed("method=ppo", *words).reward == expected


def test_the_longest_response_of_a_method_that_draws_none_is_that_of_the_evaluation() -> None:
    assert composed("method=sft", "reward=soft_overlong", "evaluation.max_new_tokens=33").reward["maximum"] == 33


def read(file: str) -> Any:
    return yaml.safe_load((CONFIGS / file).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("method", "settings", "trainer"),
    [
        ("dpo", {"beta": 0.5}, {"learning_rate": 8e-4, "batch_size": 64}),
        ("cpo", {"beta": 0.3}, {"learning_rate": 8e-4, "batch_size": 64}),
        ("bco", {"beta": 0.5}, {"learning_rate": 1e-3, "batch_size": 64}),
        ("kto", {"beta": 1.0}, {"learning_rate": 8e-4, "batch_size": 64}),
        ("orpo", {"lam": 1.0}, {"learning_rate": 2e-3, "batch_size": 64}),
        ("ranker", None, {"learning_rate": 1.5e-3}),
        ("reward", None, {"learning_rate": 1e-3, "batch_size": 64, "epochs": 2}),
        ("rft", None, {"learning_rate": 2e-3, "batch_size": 64}),
        ("rrhf", None, {"learning_rate": 1e-3, "batch_size": 32, "epochs": 1}),
        ("slic", {"delta": 3.0, "sft_weight": 0.2}, {"learning_rate": 8e-4, "batch_size": 64}),
        (
            "ppo",
            {"responses": 4, "epochs": 2, "beta": 0.2, "value_coef": 1.0, "lam": 1.0},
            {"learning_rate": 1e-3, "batch_size": 64, "epochs": 0.52},
        ),
        *(
            (
                name,
                {"responses": 4, "epochs": 2, "beta": 0.2},
                {"learning_rate": 1e-3, "batch_size": 64, "epochs": 0.52},
            )
            for name in ("rloo", "grpo")
        ),
    ],
)
def test_what_the_published_figures_were_trained_with(method: str, settings: Any, trainer: dict[str, Any]) -> None:
    """The tables of docs/results.md hold for these values."""
    assert read(f"tuned/world-{method}.yaml") == ({"method": settings} if settings else {}) | {"trainer": trainer}


def test_stages_that_run_one_after_the_other() -> None:
    assert read("recipe/rlhf.yaml") == {"from_base": True, "stages": ["sft", "reward", "ppo"]}
    assert read("recipe/rft.yaml") == {"from_base": True, "stages": ["sft", "rft"]}
    assert read("recipe/dpo.yaml") == {"from_base": True, "stages": ["sft", "dpo"]}
    for name in ("rrhf", "slic"):
        assert {**read(f"recipe/{name}.yaml"), "settings": None} == {
            "from_base": True,
            "stages": ["sft", name],
            "settings": None,
        }
    assert read("prerequisites.yaml") == {"reward": {"method": "reward", "choice": "model"}}


def test_the_smoke_preset_is_short() -> None:
    assert read("preset/smoke.yaml") == {
        "data": {"max_prompts": 64},
        "trainer": {"steps": 4, "batch_size": 4, "samples": 2},
        "evaluation": {"prompts": 4, "max_new_tokens": 16},
    }


def test_the_choices_of_a_bare_command() -> None:
    assert read("config.yaml")["defaults"][1:-2] == [
        {"method": "dpo"},
        {"recipe": None},
        {"model": "world"},
        {"adapter": "lora"},
        {"data": "world"},
        {"reward": None},
        {"optional tuned": "${model}-${method}"},
        {"preset": None},
    ]
