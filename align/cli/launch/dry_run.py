"""What a run would do, without weights and without writing anything into its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from align.cli.console import say
from align.cli.launch.execute import load_data, tokenize_for
from align.cli.launch.memory import Size, estimate

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from align.method.base import Method
    from align.settings.config import RunConfig

__all__ = ["dry_run"]


def dry_run(config: RunConfig, method: Method, architecture: PretrainedConfig) -> None:
    """Print the resolved configuration, data counts, steps, parameters and a memory estimate."""
    from align.runs.folder import redact
    from align.training.plan import Plan

    say(OmegaConf.to_yaml(OmegaConf.create(redact(config.plain()))))
    train, _ = load_data(config)
    tokens = tokenize_for(config, method, train)
    say(tokens.report.summary())
    plan = Plan.of(config.trainer, method, examples=len(tokens), adapters=config.adapter is not None)
    say(
        f"{plan.steps:,} steps of {plan.batch_size} prompts, {plan.steps_per_epoch:,} steps per epoch; "
        f"learning rate {plan.learning_rate:g}, {plan.schedule}, warm-up {plan.warmup:g}"
    )
    size = _size(config, architecture)
    say(f"Parameters: {size.trainable:,} trained of {size.total:,} ({size.trainable / size.total:.2%})")
    parts = estimate(config, size, copies=len(method.roles))
    say(f"Memory of each process, about {_bytes(sum(parts.values()))}:")
    for name, amount in parts.items():
        say(f"  {_bytes(amount):>8}  {name}")
    say(f"Dry run: nothing was trained; the run folder would be {config.output_root}/{config.run_name}.")


def _bytes(amount: float) -> str:
    return f"{amount / 2**30:.1f} GiB" if amount >= 2**30 else f"{amount / 2**20:.0f} MiB"


def _size(config: RunConfig, architecture: PretrainedConfig) -> Size:
    """Count parameters on a skeleton that has no weights."""
    import torch
    from peft import LoraConfig, PeftConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from align.model.loading import resolve

    model = config.model
    with torch.device("meta"):
        skeleton: Any = AutoModelForCausalLM.from_config(architecture, trust_remote_code=model.trust_remote_code)
    total = trainable = sum(p.numel() for p in skeleton.parameters())
    if config.adapter is not None:
        lora = config.adapter.to_peft() if model.start is None else PeftConfig.from_pretrained(resolve(model.start))
        assert isinstance(lora, LoraConfig)
        with torch.device("meta"):
            skeleton = get_peft_model(skeleton, lora)
        trainable = sum(p.numel() for name, p in skeleton.named_parameters() if "lora_" in name)
    text = architecture.get_text_config()
    return Size(
        total=total,
        trainable=trainable,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
    )
