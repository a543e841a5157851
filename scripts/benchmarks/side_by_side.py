"""One optimiser step beside TRL's trainer for the same work: each side in its own process, in turns, on the same rows.

Model, adapter, head, examples of each step, precision and optimiser are the same; the losses of the first step must
agree. A step's time is forward, backward, clipping and update.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from align.data.examples import tokenize
from align.errors import UserError
from benchmarks import ours, trl_side
from benchmarks.flops import matmul_rate, sizes_of, useful_flops
from benchmarks.measuring import quartiles, ratios, report, settings_of, spread, versions
from benchmarks.models import quiet, save_random_llama, train_tokenizer
from benchmarks.turns import Course, Side, take_turns

if TYPE_CHECKING:
    from align.data import Example, Preferences
    from align.method.base import Method
    from align.model.batch import Layout

TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
"""Largest difference between the first losses, relative to them."""

FORWARDS = {"sft": 0, "dpo": 1, "kto": 3, "reward": 0}
"""Passes without a gradient: the reference's, and of KTO those of both on the answers to other prompts."""
FEWER = {"dpo": 1, "kto": 2}
"""Those that precomputed references spare."""


def bench(options: argparse.Namespace, *, name: str) -> None:
    """Measure a method beside TRL's trainer and print the result."""
    quiet(options.threads)
    load_before = os.getloadavg()[0]
    method = method_of(name, options)
    with TemporaryDirectory() as scratch:
        folder, steps = set_up(options, Path(scratch), method)
        if options.peer == "best" and trl_side.PEERS[name].grouped:
            steps = grouped(steps, options)
        sizes = sizes_of(folder)
        sides: dict[str, Side] = {
            "align": partial(ours.train, method=method, steps=steps),
            "TRL": partial(trl_side.train, name=name, steps=steps),
        }
        rates = [matmul_rate(options.dtype)]
        courses = take_turns(sides, options, folder)
        rates.append(matmul_rate(options.dtype))
    losses = {side: course.first["loss"] for side, course in courses.items()}
    check_losses(losses, options.dtype)
    measured = steps[options.warmup :]
    cached = {"align": bool(method.cached_columns), "TRL": "precompute_ref_log_probs" in _fast(name, options)}
    result = {
        "benchmark": name,
        "settings": {
            **settings_of(options),
            "model_parameters": sizes["parameters"],
            "ours": {"layout": "tree" if courses["align"].first["tree"] else "flat", "reference_cached": cached["align"]},
            "trl": _fast(name, options),
            "versions": versions(),
        },
        "matmul_flops_per_second": max(rates),
        "sides": {
            side: {
                **course.summary(),
                **utilisation(
                    name,
                    measured,
                    course,
                    sizes,
                    layout="tree" if course.first.get("tree") else "flat",
                    forwards=FORWARDS[name] - FEWER.get(name, 0) * cached[side],
                    rate=max(rates),
                ),
            }
            for side, course in courses.items()
        },
        "ratios": {"align/TRL": compared(courses["align"], courses["TRL"])},
        "loss_of_first_step": losses,
        "load_average_before": load_before,
    }
    report(result, options, print_table)


def method_of(name: str, options: argparse.Namespace) -> Method:
    """Return this project's method with the settings that TRL's trainer has by default."""
    from methods import DPO, KTO, SFT
    from reward.training.modelling import RewardModel

    match name:
        case "sft":
            return SFT()
        case "dpo":
            return DPO(beta=0.1, reference="cached" if options.peer == "best" else "live")
        case "kto":
            return KTO(beta=0.1)
        case _:
            return RewardModel()


def set_up(options: argparse.Namespace, scratch: Path, method: Method) -> tuple[Path, list[list[Example]]]:
    """Return the folder of the model, and the examples of each step."""
    from transformers import AutoTokenizer

    from align.data import Preferences

    preferences = Preferences.load(options.data, max_rejected=1.0)
    if options.model is not None:
        return options.model, choose(preferences, AutoTokenizer.from_pretrained(options.model), method, options)
    tokenizer = train_tokenizer(preferences, options.vocabulary)
    save_random_llama(scratch, tokenizer, options, positions=2 * options.max_length)
    return scratch, choose(preferences, tokenizer, method, options)


def choose(
    preferences: Preferences, tokenizer: Any, method: Method, options: argparse.Namespace
) -> list[list[Example]]:
    """Return the examples of each step, drawn from the data."""
    from align.system.randomness import epoch_order

    wanted = (options.warmup + options.steps) * options.pairs
    # Three times as many rows as needed, because some are longer than max_length
    rows = epoch_order(len(preferences), seed=options.seed, epoch=0)[: 3 * wanted]
    data = tokenize(
        preferences.select(rows), tokenizer, max_length=options.max_length, unit=method.unit, max_rejected=1.0
    )
    if method.unit != "demonstration":
        places = [i for i, example in enumerate(data) if len(example.responses) == 2]
    else:
        places = list(range(len(data)))
    if len(places) < wanted:
        raise UserError(f"{options.data} gives {len(places)} usable pairs, {wanted} are needed; lower --steps.")
    examples = [data[i] for i in places[:wanted]]
    return [examples[start : start + options.pairs] for start in range(0, wanted, options.pairs)]


def grouped(steps: list[list[Example]], options: argparse.Namespace) -> list[list[Example]]:
    """Return the same examples in the order of ``group_by_length``, the longest first."""
    import torch
    from transformers.trainer_pt_utils import get_length_grouped_indices

    examples = [example for step in steps for example in step]
    lengths = [len(example.prompt_ids) + max(map(len, example.responses)) for example in examples]
    generator = torch.Generator().manual_seed(options.seed)
    order = get_length_grouped_indices(lengths, options.pairs, generator=generator)
    return [[examples[i] for i in order[start : start + options.pairs]] for start in range(0, len(order), options.pairs)]


def check_losses(losses: dict[str, float], dtype: str) -> None:
    """Raise an error unless both sides learn from the same: a comparison of speed would say nothing."""
    ours, theirs = losses["align"], losses["TRL"]
    if abs(ours - theirs) > TOLERANCE[dtype] * max(1.0, abs(theirs)):
        raise UserError(
            f"the losses of the first step differ, {ours:.6f} and {theirs:.6f} (TRL), by more than {TOLERANCE[dtype]} "
            f"in {dtype}: the sides do not do the same work, so their times are not compared."
        )


def utilisation(
    name: str,
    steps: Sequence[Sequence[Example]],
    course: Course,
    sizes: dict[str, int],
    *,
    layout: Layout,
    forwards: int,
    rate: float,
) -> dict[str, Any]:
    """Return the real tokens of a step, and useful FLOPs over time as a share of the rate of matrix products.

    ``causal`` counts each query's own past, ``square`` all keys; ``cpu`` divides by CPU time.
    """
    from align.model.batch import Batch

    batches = [Batch.from_examples(examples) for examples in steps]
    tokens = [sum(length for rows in batch.row_lengths(layout) for length in rows) for batch in batches]
    flops = {
        convention: [
            useful_flops(batch, layout, sizes, forwards=forwards, head=name != "reward", causal=convention == "causal")
            for batch in batches
        ]
        for convention in ("causal", "square")
    }
    times = {"seconds": course.seconds, "cpu": course.cpu_seconds}
    return {
        "real_tokens": spread(tokens)["median"],
        "real_share": sum(tokens) / sum(course.told["padded_tokens"]),
        "share_of_peak": {
            f"{convention}_{clock}": spread([f / t / rate for f, t in zip(counted, time, strict=True)])["median"]
            for convention, counted in flops.items()
            for clock, time in times.items()
        },
    }


def compared(ours: Course, theirs: Course) -> dict[str, Any]:
    """Return the ratios of the times step by step, of the peaks of memory, and of the first steps."""
    return {
        "seconds": ratios(ours.seconds, theirs.seconds),
        "cpu_seconds": ratios(ours.cpu_seconds, theirs.cpu_seconds),
        "peak": ours.peak_mib / theirs.peak_mib,
        "first": ours.first_seconds / theirs.first_seconds,
    }


def _fast(name: str, options: argparse.Namespace) -> dict[str, Any]:
    peer = trl_side.PEERS[name]
    sampling = {"train_sampling_strategy": "group_by_length"} if options.peer == "best" and peer.grouped else {}
    return {**trl_side.settings(peer, options), **sampling}


def print_table(result: dict[str, Any]) -> None:
    """Print conditions, times and their ratios."""
    from rich.console import Console
    from rich.table import Table

    settings, console = result["settings"], Console()
    console.print(
        f"{result['benchmark']}: {settings['pairs']} examples a step ({settings['data']}), "
        f"{settings['model'] or 'LLaMA'} of {settings['model_parameters'] / 1e6:.1f}M parameters, LoRA "
        f"r={settings['rank']} on all linear layers, {settings['dtype']}, {settings['threads']} CPU threads. "
        f"Ours: {settings['ours']}. TRL {settings['versions']['trl']}, {settings['peer']}: {settings['trl'] or 'as it comes'}."
    )
    table = Table(
        *("", "seconds", "quartiles", "CPU", "first", "tokens: padded", "real", "peak MiB", "of matmul peak"),
        title=f"A step, medians of {settings['steps']}",
    )
    for name, side in result["sides"].items():
        share = side["share_of_peak"]
        table.add_row(
            name,
            f"{side['seconds']['median']:.2f}",
            quartiles(side["seconds"], 2),
            f"{side['cpu_seconds']['median']:.2f}",
            f"{side['first_seconds']:.2f}",
            f"{side['padded_tokens']:,.0f}",
            f"{side['real_tokens']:,.0f}",
            f"{side['peak_mib']:,.0f}",
            f"{share['causal_cpu']:.2f} ({share['square_cpu']:.2f} square)",
        )
    console.print(table)
    ratio = result["ratios"]["align/TRL"]
    console.print(
        f"Step by step {ratio['seconds']['median']:.3f} of TRL's time, quartiles {quartiles(ratio['seconds'])}; of CPU "
        f"time {ratio['cpu_seconds']['median']:.3f} ({quartiles(ratio['cpu_seconds'])}); of peak memory "
        f"{ratio['peak']:.3f}."
    )
    losses = result["loss_of_first_step"]
    console.print(
        f"Loss of the first step: {losses['align']:.6f} and {losses['TRL']:.6f} (TRL). "
        f"Load of the machine before: {result['load_average_before']:.1f}."
    )
