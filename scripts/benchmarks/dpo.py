"""One optimiser step of DPO beside TRL's DPOTrainer: they take turns, step by step, on the same pairs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from align.data.examples import tokenize
from benchmarks.measuring import Measurement, quartiles, ratios, report, settings_of, versions
from benchmarks.models import quiet, save_random_llama, train_tokenizer
from benchmarks.ours import load_policy, make_stepper

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from trl import DPOTrainer

    from align.data import Example, Preferences
    from align.model.batch import Batch
    from align.model.policy import Policy
    from align.training.step import Stepper

BETA = 0.1  # TRL's default, in both
LOSS_TOLERANCE = 1e-4


def bench_dpo(options: argparse.Namespace) -> None:
    """Measure DPO and print the result."""
    from methods.dpo.dpo import DPO

    quiet(options.threads)
    load_before = os.getloadavg()[0]
    with TemporaryDirectory() as folder:
        policy, trainer, examples = _set_up(options, Path(folder))
        stepper = make_stepper(policy, DPO(beta=BETA), options)
        losses = _same_loss(stepper, trainer, examples[: options.pairs])
        ours, theirs = _take_turns(stepper, trainer, examples, options)
    measured = slice(options.warmup, None)
    result = {
        "benchmark": "dpo",
        "settings": _settings(options, policy),
        "ours": ours.summary(measured),
        "trl": theirs.summary(measured),
        "ratio_of_medians": median(ours.seconds[measured]) / median(theirs.seconds[measured]),
        "ratio_by_step": ratios(ours.seconds[measured], theirs.seconds[measured]),
        "cpu_ratio_by_step": ratios(ours.cpu_seconds[measured], theirs.cpu_seconds[measured]),
        "loss_of_first_batch": losses,
        "load_average_before": load_before,
    }
    report(result, options, print_table)


def _settings(options: argparse.Namespace, policy: Policy) -> dict[str, Any]:
    trainable, total = policy.parameter_count()
    return {
        **settings_of(options),
        "model_parameters": total,
        "trained_parameters": trainable,
        "dtype": "float32",
        "layout": policy.layout,
        "reference": "live in both",
        "gradient_checkpointing": False,
        "trl_batch": f"per_device_train_batch_size={options.pairs}, padded to its longest response",
        "versions": versions(),
    }


def _set_up(options: argparse.Namespace, folder: Path) -> tuple[Policy, DPOTrainer, list[Example]]:
    """Return both sides, with the same model and adapter, and the pairs in TRL's order."""
    from align.data import Preferences
    from align.settings.adapter import Adapter

    preferences = Preferences.load(options.data)
    tokenizer = train_tokenizer(preferences, options.vocabulary)
    save_random_llama(folder, tokenizer, options, positions=2 * options.max_length)
    examples = _choose(preferences, tokenizer, options)
    policy = load_policy(folder, options)
    trainer = _trl_trainer(folder, examples, Adapter(r=options.rank), options)
    _move_adapters(policy, trainer, options.seed)
    return policy, trainer, examples


def _choose(preferences: Preferences, tokenizer: PreTrainedTokenizerBase, options: argparse.Namespace) -> list[Example]:
    from align.errors import UserError
    from align.system.randomness import epoch_order

    wanted = (options.warmup + options.steps) * options.pairs
    # Three times as many rows as needed, because some are longer than max_length
    rows = epoch_order(len(preferences), seed=options.seed, epoch=0)[: 3 * wanted]
    pairs = tokenize(preferences.select(rows), tokenizer, max_length=options.max_length, unit="pair", max_rejected=1.0)
    if len(pairs) < wanted:
        raise UserError(f"{options.data} gives {len(pairs)} usable pairs, {wanted} are needed; lower --steps.")
    return pairs[:wanted]


def _trl_trainer(folder: Path, examples: list[Example], adapter: Any, options: argparse.Namespace) -> DPOTrainer:
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import DPOConfig, DPOTrainer

    class OnTokens(DPOTrainer):
        """Takes pairs that are token ids already."""

        def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:  # noqa: ARG002
            return dataset

    columns = {
        "prompt_ids": [example.prompt_ids for example in examples],
        "chosen_ids": [example.responses[0] for example in examples],
        "rejected_ids": [example.responses[1] for example in examples],
    }
    trainer = OnTokens(
        model=str(folder),
        args=DPOConfig(
            output_dir=str(folder / "trl"),
            per_device_train_batch_size=options.pairs,
            max_steps=options.warmup + options.steps,
            max_length=options.max_length,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            train_sampling_strategy="sequential",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict(columns),
        peft_config=adapter.to_peft(),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _move_adapters(policy: Policy, trainer: Any, seed: int) -> None:
    """Give both sides the same trained-looking adapter: with a new one every correct or wrong loss is log 2."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    theirs = dict(trainer.model.named_parameters())
    with torch.no_grad():
        for name, parameter in policy.roles.weights("policy").items():
            if ".lora_B." in name:
                parameter.normal_(std=0.02, generator=generator)
            theirs[name.replace(".weight", ".default.weight")].copy_(parameter)


def _same_loss(stepper: Stepper, trainer: Any, examples: Sequence[Example]) -> dict[str, float]:
    """Return both losses of one batch; they must agree for the comparison to be fair."""
    import torch

    from align.model.batch import Batch

    inputs = trainer.data_collator(list(trainer.train_dataset)[: len(examples)])
    with torch.no_grad():
        theirs = float(trainer.compute_loss(trainer.model, inputs))
    ours = stepper.processes.reduce_metrics(stepper.measure(Batch.from_examples(examples)))["loss"]
    assert abs(ours - theirs) <= LOSS_TOLERANCE, f"the losses of the first batch differ: {ours} and {theirs} (TRL)"
    return {"ours": ours, "trl": theirs}


def _take_turns(
    stepper: Stepper, trainer: Any, examples: Sequence[Example], options: argparse.Namespace
) -> tuple[Measurement, Measurement]:
    """Train with TRL's own loop, with one of our steps on the same pairs after each of its steps.

    TRL's time is its step alone (forward, backward, clipping, update), without the collation of the batch. Ours
    includes the layout of the batch.
    """
    from transformers import TrainerCallback

    from align.model.batch import Batch

    ours, theirs = Measurement(), Measurement()

    class Turns(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            theirs.start()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            theirs.stop()
            first = len(ours.seconds) * options.pairs
            batch = Batch.from_examples(examples[first : first + options.pairs])
            theirs.tokens.append(_padded_rows(batch))
            ours.tokens.append(_padded_tokens(stepper, batch))
            ours.start()
            stepper.step(batch)
            ours.stop()

    trainer.add_callback(Turns())
    trainer.train()
    return ours, theirs


def _padded_tokens(stepper: Stepper, batch: Batch) -> int:
    """Return the tokens of our forward passes over a step."""
    layout = stepper.policy.layout
    parts = [part.row_lengths(layout) for part in batch.micro_batches(stepper.tokens_per_microbatch, layout)]
    return sum(sum(map(len, rows)) * max(map(max, rows)) for rows in parts)


def _padded_rows(batch: Batch) -> int:
    """Return the tokens of TRL's forward pass: a row per response, padded to the longest."""
    rows = batch.row_lengths("flat")
    return sum(map(len, rows)) * max(map(max, rows))


def print_table(result: dict[str, Any]) -> None:
    """Print conditions, times and their ratios."""
    from rich.console import Console
    from rich.table import Table

    settings, console = result["settings"], Console()
    console.print(
        f"One DPO step of {settings['pairs']} pairs ({settings['data']}), LLaMA of "
        f"{settings['model_parameters'] / 1e6:.1f}M parameters, LoRA r={settings['rank']} on all linear layers, "
        f"float32, {settings['threads']} CPU threads. Reference live, no gradient checkpointing. "
        f"Ours: layout {settings['layout']}, {settings['tokens_per_microbatch']} tokens per micro-batch. "
        f"TRL {settings['versions']['trl']}: {settings['trl_batch']}."
    )
    table = Table(
        "",
        "median",
        "quartiles",
        "CPU time",
        "tokens per forward",
        title=f"Seconds per step, {settings['steps']} steps",
    )
    for name, label in (("ours", "align"), ("trl", "TRL DPOTrainer")):
        seconds = result[name]["seconds"]
        cpu, tokens = f"{result[name]['cpu_seconds']['median']:.2f}", f"{result[name]['padded_tokens']:,.0f}"
        table.add_row(label, f"{seconds['median']:.2f}", quartiles(seconds, 2), cpu, tokens)
    console.print(table)
    steps = result["ratio_by_step"]
    console.print(
        f"Ratio of the medians {result['ratio_of_medians']:.3f}; step by step {steps['median']:.3f}, quartiles "
        f"{quartiles(steps)}, extremes {steps['min']:.3f} – {steps['max']:.3f}; "
        f"of CPU time {result['cpu_ratio_by_step']['median']:.3f}."
    )
    losses = result["loss_of_first_batch"]
    console.print(
        f"Loss of the first batch: {losses['ours']:.6f} and {losses['trl']:.6f} (TRL). "
        f"Load of the machine before: {result['load_average_before']:.1f}."
    )
