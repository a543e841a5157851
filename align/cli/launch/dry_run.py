"""A dry run: says what a run would do, from the data and the sizes of the model, without its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from omegaconf import OmegaConf

from align.candidates.drawing import prompts_to_answer
from align.cli.console import say
from align.cli.launch.assemble import load_data, read_tokenizer, tokenize_data, try_scorers
from align.cli.launch.run import Run, Scorers
from align.model.adapters import add_lora, lora_config
from align.model.sources import require_loadable
from align.runs.run_folder import redact
from align.settings.config import RunConfig
from align.training.plan import Plan

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ["Size", "dry_run", "estimate"]

_WEIGHT_BYTES = {"float32": 4.0, "bfloat16": 2.0, "4bit": 0.6}  # 4 bits, their scales, and what stays unquantised
_OPTIMIZER_BYTES = {"adamw": 8, "adamw_8bit": 2, "rmsprop": 4, "sgd": 0}  # state per trained parameter
_LIBRARIES = 0.6 * 2**30  # a process that has imported everything and loaded nothing


def dry_run(run: Run, scorers: Scorers, architecture: PretrainedConfig) -> None:
    """Print the resolved configuration, data counts, steps, parameters and a memory estimate."""
    config, method = run.config, run.method
    say(OmegaConf.to_yaml(OmegaConf.create(redact(config.plain()))))
    tokenizer, _ = read_tokenizer(config)
    train, heldout = load_data(config)
    try_scorers(run, scorers, train, heldout)
    if config.stage == "sample":
        assert method.candidates is not None
        examples = prompts_to_answer(train, tokenizer, method.candidates, config.trainer.max_length)
        say(examples.report.summary())
        models = 1 + len(method.candidates.sources)
        say(f"{len(examples):,} prompts, {method.candidates.samples * models} candidates for each")
    else:
        examples, _ = tokenize_data(run, train, None, tokenizer)
        say(examples.report.summary())
        plan = Plan.of(config.trainer, method, examples=len(examples), adapters=config.adapter is not None)
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


@dataclass(frozen=True, kw_only=True)
class Size:
    """Sizes of a model."""

    total: int  # parameters without adapters
    trainable: int  # parameters that one role trains
    layers: int
    hidden: int
    intermediate: int


def estimate(config: RunConfig, size: Size, *, copies: int) -> dict[str, float]:
    """Estimate the bytes of each purpose; `copies` is the number of roles, which share the base if there are adapters.

    Backward needs of each token and decoder layer about ten vectors of the hidden size (norms, attention, residuals)
    and four of the intermediate size (gated MLP): counted on LLaMA and Qwen3 with autograd's hooks, right within
    15 %. With gradient checkpointing it needs one layer of that, and one vector per layer. Autocast keeps some of
    them in both precisions. The peak is taken as twice that: a 26M LLaMA on a CPU took 1.8 to 2.1 times.
    """
    model, trainer = config.model, config.trainer
    adapters = config.adapter is not None
    dtype = model.dtype if adapters else "float32"  # trained weights
    bytes_per_weight = _WEIGHT_BYTES[model.quantization or dtype]
    autocast = trainer.precision == "bfloat16" and dtype == "float32"
    layer = 10 * size.hidden + 4 * size.intermediate
    per_token = layer * size.layers
    if trainer.gradient_checkpointing:
        per_token = layer + size.hidden * size.layers
    return {
        "model": size.total * bytes_per_weight * (1 if adapters else copies),
        "adapters": 4.0 * size.trainable * copies if adapters else 0.0,
        "gradients": 4.0 * size.trainable,
        "optimizer": float(_OPTIMIZER_BYTES[trainer.optimizer] * size.trainable),
        f"activations of {trainer.tokens_per_microbatch:,} tokens": (
            2.0 * trainer.tokens_per_microbatch * per_token * (5 if autocast else 4)
        ),
        "Python and its libraries": _LIBRARIES,
    }


def _bytes(amount: float) -> str:
    return f"{amount / 2**30:.1f} GiB" if amount >= 2**30 else f"{amount / 2**20:.0f} MiB"


def _size(config: RunConfig, architecture: PretrainedConfig) -> Size:
    """Count parameters on a skeleton that has no weights."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM

    model = config.model
    start = require_loadable(model, config.adapter)
    with torch.device("meta"):
        skeleton: Any = AutoModelForCausalLM.from_config(architecture, trust_remote_code=model.trust_remote_code)
    total = trainable = sum(p.numel() for p in skeleton.parameters())
    if config.adapter is not None:
        if start is None:
            lora, place = lora_config(skeleton, config.adapter), f"adapter.targets={config.adapter.targets}"
        else:
            lora, place = LoraConfig.from_pretrained(str(start)), f"model.start={model.start}"
            lora.base_model_name_or_path = None
        with torch.device("meta"):
            adapted = add_lora(skeleton, cast("LoraConfig", lora), place)
        trainable = sum(p.numel() for name, p in adapted.named_parameters() if ".lora_" in name)
    text = architecture.get_text_config()
    return Size(
        total=total,
        trainable=trainable,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
    )
