"""One optimiser step beside TRL's trainer for the same work: each side in its own process, in turns, on the same rows.

Model, adapter, head, examples of each step, precision and optimiser are the same; the losses of the first step must
agree. A step's time is forward, backward, clipping and update.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from align.data.examples import tokenize
from align.errors import UserError
from benchmarks import ours, trl_side
from benchmarks.flops import matmul_rates, real_tokens, sizes_of, useful_flops
from benchmarks.measuring import quartiles, ratios, report, settings_of, versions
from benchmarks.models import quiet, save_random_llama, train_tokenizer
from benchmarks.turns import Course, Side, take_turns

if TYPE_CHECKING:
    from align.data import Example, Preferences
    from align.method.base import Method
    from align.model.batch import Layout

TOLERANCE = {"float32": 1e-4, "bfloat16": 8e-2}
"""Largest difference between the first losses, relative to them. In bfloat16 rounding moves the log-probability of a
response of some hundred tokens by about half a nat."""

FORWARDS = {"sft": 0, "dpo": 1, "kto": 3, "reward": 0}
"""Passes without a gradient: the reference's, and of KTO those of both on the answers to other prompts."""
FEWER = {"dpo": 1, "kto": 2}
"""Those that precomputed references spare."""


def bench(options: argparse.Namespace, *, name: str) -> None:
    """Measure a method beside TRL's trainer and print the result."""
    quiet(options.threads)
    method, best = method_of(name, options), options.peer == "best"
    with TemporaryDirectory() as scratch:
        folder, steps = set_up(options, Path(scratch), method)
        if best and trl_side.PEERS[name].grouped:
            steps = grouped(steps, options)
        sides: dict[str, Side] = {
            "align": partial(ours.train, method=method, steps=steps),
            "TRL": partial(trl_side.train, name=name, steps=steps),
        }
        cached = {"align": bool(method.cached_columns(passes=1)), "TRL": best and name in FEWER}
        forwards = {side: FORWARDS[name] - FEWER.get(name, 0) * cached[side] for side in sides}
        result = measure(name, sides, steps, options, folder, forwards)
    result["settings"]["reference_cached"] = cached
    result["settings"]["trl"] = trl_side.shown_settings(name, options)
    report(result, options, print_table)


def bench_rrhf(options: argparse.Namespace) -> None:
    """Measure RRHF with each prompt computed once for all its responses, and once for each; print the result."""
    from methods.rrhf import RRHF

    quiet(options.threads)
    method = RRHF()
    with TemporaryDirectory() as scratch:
        folder, steps = set_up(options, Path(scratch), method)
        steps = [rankings(step, options.responses) for step in steps]
        sides: dict[str, Side] = {
            layout: partial(ours.train, method=method, steps=steps, layout=layout) for layout in ("tree", "flat")
        }
        result = measure("rrhf", sides, steps, options, folder, dict.fromkeys(sides, 0))
    report(result, options, print_table)


def measure(
    name: str,
    sides: Mapping[str, Side],
    steps: list[list[Example]],
    options: argparse.Namespace,
    folder: Path,
    forwards: Mapping[str, int],
) -> dict[str, Any]:
    """Let two sides take turns, the second being what the first is compared with."""
    load_before = os.getloadavg()[0]
    sizes = sizes_of(folder)
    before = matmul_rates(options.dtype)
    courses = take_turns(sides, options, folder)
    rates = {clock: max(before[clock], rate) for clock, rate in matmul_rates(options.dtype).items()}
    losses = {side: course.first["loss"] for side, course in courses.items()}
    check_losses(losses, options.dtype)
    first, second = courses
    return {
        "benchmark": name,
        "settings": {**settings_of(options), "model_parameters": sizes["parameters"], "versions": versions()},
        "matmul_flops_per_second": rates,
        "sides": {
            side: {
                **course.summary(),
                **utilisation(
                    steps[options.warmup :],
                    course,
                    sizes,
                    layout="tree" if course.first.get("tree") else "flat",
                    forwards=forwards[side],
                    head=name != "reward",
                    rates=rates,
                ),
            }
            for side, course in courses.items()
        },
        "ratios": {f"{first}/{second}": compared(courses[first], courses[second])},
        "loss_of_first_step": losses,
        "load_average_before": load_before,
    }


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
    """Return the same examples in the steps that ``group_by_length`` makes of a window of 50.

    The steps are in random order, so that warm-up does not take all of the longest, which that puts first.
    """
    import torch
    from transformers.trainer_pt_utils import get_length_grouped_indices

    from align.system.randomness import epoch_order

    examples = [example for step in steps for example in step]
    lengths = [len(example.prompt_ids) + max(map(len, example.responses)) for example in examples]
    generator = torch.Generator().manual_seed(options.seed)
    order = get_length_grouped_indices(lengths, options.pairs, mega_batch_mult=50, generator=generator)
    return [
        [examples[i] for i in order[number * options.pairs :][: options.pairs]]
        for number in epoch_order(len(steps), seed=options.seed, epoch=0)
    ]


def rankings(examples: Sequence[Example], K: int) -> list[Example]:
    """Return the examples with K candidates each, the best first: their own answers, and those of the next ones."""
    pool = [ids for example in examples for ids in example.responses]
    return [
        replace(
            example,
            responses=[pool[(2 * i + k) % len(pool)] for k in range(K)],
            scores=[float(K - k) for k in range(K)],
            comparisons=list(combinations(range(K), 2)),
        )
        for i, example in enumerate(examples)
    ]


def check_losses(losses: Mapping[str, float], dtype: str) -> None:
    """Raise an error unless both sides learn from the same: a comparison of speed would say nothing."""
    (a, ours), (b, theirs) = losses.items()
    if abs(ours - theirs) > TOLERANCE[dtype] * max(1.0, abs(theirs)):
        raise UserError(
            f"the losses of the first step differ, {ours:.6f} ({a}) and {theirs:.6f} ({b}), by more than "
            f"{TOLERANCE[dtype]} in {dtype}: the sides do not do the same work, so their times are not compared."
        )


def utilisation(
    steps: Sequence[Sequence[Example]],
    course: Course,
    sizes: dict[str, int],
    *,
    layout: Layout,
    forwards: int,
    head: bool,
    rates: Mapping[str, float],
) -> dict[str, Any]:
    """Return the real tokens of a step, and useful FLOPs over time as a share of the rate of matrix products.

    ``causal`` counts each query's own past, ``square`` all keys; ``cpu`` has both over CPU time.
    """
    from align.model.batch import Batch

    batches = [Batch.from_examples(examples) for examples in steps]
    tokens = [real_tokens(batch, layout) for batch in batches]
    flops = {
        convention: [
            useful_flops(batch, layout, sizes, forwards=forwards, head=head, causal=convention == "causal")
            for batch in batches
        ]
        for convention in ("causal", "square")
    }
    times = {"seconds": course.seconds, "cpu": course.cpu_seconds}
    return {
        "real_tokens": median(tokens),
        "real_share": sum(tokens) / sum(course.told["padded_tokens"]),
        "share_of_peak": {
            f"{convention}_{clock}": median(f / t / rates[clock] for f, t in zip(counted, time, strict=True))
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


def print_table(result: dict[str, Any]) -> None:
    """Print conditions, times and their ratios."""
    from rich.console import Console
    from rich.table import Table

    settings, console = result["settings"], Console(width=150)
    console.print(
        f"{result['benchmark']}: {settings['pairs']} examples a step ({settings['data']}), "
        f"{settings['model'] or 'random LLaMA'} of {settings['model_parameters'] / 1e6:.1f}M parameters, LoRA "
        f"r={settings['rank']} on all linear layers, {settings['dtype']}, {settings['threads']} CPU threads."
    )
    if "peer" in settings:
        fast = ", ".join(f"{name}={value}" for name, value in settings["trl"].items()) or "as it comes"
        console.print(f"TRL {settings['versions']['trl']}, {settings['peer']}: {fast}.")
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
    ((pair, ratio),) = result["ratios"].items()
    first, second = pair.split("/")
    console.print(
        f"Step by step {first} takes {ratio['seconds']['median']:.3f} of the time of {second}, quartiles "
        f"{quartiles(ratio['seconds'])}; of CPU time {ratio['cpu_seconds']['median']:.3f} "
        f"({quartiles(ratio['cpu_seconds'])}); of peak memory {ratio['peak']:.3f}."
    )
    losses = " and ".join(f"{loss:.6f} ({side})" for side, loss in result["loss_of_first_step"].items())
    console.print(f"Loss of the first step: {losses}. Load of the machine before: {result['load_average_before']:.1f}.")
