"""A dry run: says what a run would do, from the data and the sizes of the model, without its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from align.candidates.drawing import prompts_to_answer
from align.cli.console import say
from align.cli.launch.assemble import load_data, read_tokenizer, tokenize_data, try_scorers
from align.cli.launch.free_checks import warn_of
from align.cli.launch.run import Run, Scorers
from align.model.skeleton import skeleton
from align.system.redaction import redact
from align.training.cluster import Cluster
from align.training.memory import Workload, estimate, readable
from align.training.plan import Plan
from align.training.scale import advice

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ["dry_run"]


def dry_run(run: Run, scorers: Scorers, architecture: PretrainedConfig) -> None:
    """Print the resolved configuration, data counts, steps, parameters, a memory estimate and what would fit."""
    config, method = run.config, run.method
    say(OmegaConf.to_yaml(OmegaConf.create(redact(config.plain()))))
    tokenizer, _ = read_tokenizer(config)
    train, heldout = load_data(config)
    try_scorers(run, scorers, train, heldout)
    plan = None
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
        warn_of(run, (train, heldout), tokenizer, examples)
        for doubt in method.doubts(examples, plan.steps):
            say(f"Warning: {doubt}")
    whole = skeleton(config.model, config.adapter, architecture)
    size = whole.size
    say(f"Parameters: {size.trainable:,} trained of {size.total:,} ({size.trainable / size.total:.2%})")
    work = Workload(
        method=method, architecture=architecture, whole=whole, examples=examples, plan=plan, tokenizer=tokenizer
    )
    cluster = Cluster.own()
    say("\n".join(estimate(config, work).lines()))
    there = f"  {readable(cluster.room):>8}  there is for each process"
    say(there if plan is None else f"{there}\nAdvice: {advice(config, work, cluster)}")
    say(f"Dry run: nothing was trained; the run folder would be {config.output_root}/{config.run_name}.")
