"""A run on pairs of one length, as the estimates of memory and time see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from align.settings.config import RunConfig
    from align.training.memory import Workload


def workload(
    architecture: PretrainedConfig,
    *,
    adapter: bool,
    method: str = "dpo",
    pairs: int = 128,
    tokens: int = 512,
    dtype: Literal["float32", "bfloat16"] = "bfloat16",
) -> tuple[RunConfig, Workload]:
    """Return a run on pairs, without its model's weights.

    Args:
        architecture: Of the model.
        adapter: The base is frozen; else all of it is trained.
        method: A registered one that learns from pairs.
        pairs: Of a step.
        tokens: Of each prompt and of each answer.
        dtype: Of the base and of the computation.
    """
    from align.data import Preferences
    from align.model.loading import load_tokenizer
    from align.model.skeleton import skeleton
    from align.settings.adapter import Adapter
    from align.settings.config import DataConfig, EvaluationConfig, ModelConfig, RunConfig, TrainerConfig
    from align.settings.registry import load
    from align.training.feed import tokenize_for
    from align.training.memory import Workload
    from align.training.plan import Plan

    config = RunConfig(
        method=method,
        model=ModelConfig(name="world/base", dtype=dtype),
        adapter=Adapter() if adapter else None,
        data=DataConfig(train="world"),
        trainer=TrainerConfig(batch_size=pairs, precision=dtype, max_length=2 * tokens),
        evaluation=EvaluationConfig(prompts=0),
        run_name="scale",
    )
    ids = [5 + i % 200 for i in range(tokens)]  # every row another one
    rows = [{"prompt_ids": ids[i:] + ids[:i], "chosen_ids": ids, "rejected_ids": ids[::-1]} for i in range(pairs)]
    tokenizer, made = load_tokenizer(config.model), load("methods", method)()
    examples = tokenize_for(made, Preferences.from_rows(rows), tokenizer, 2 * tokens)
    plan = Plan.of(config.trainer, made, examples=len(examples), adapters=adapter)
    whole = skeleton(config.model, config.adapter, architecture)
    return config, Workload(
        method=made, architecture=architecture, whole=whole, examples=examples, plan=plan, tokenizer=tokenizer
    )
