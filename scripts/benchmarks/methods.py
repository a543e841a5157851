"""A step of every off-line method on the same pairs, relative to DPO: one model in one process, in turns."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from align.data.examples import tokenize
from benchmarks.measuring import Measurement, quartiles, ratios, report, settings_of, spread, versions
from benchmarks.models import quiet, save_random_llama, train_tokenizer
from benchmarks.ours import load_policy, make_stepper
from benchmarks.side_by_side import choose

if TYPE_CHECKING:
    from align.data import Preferences
    from align.method.base import Method
    from align.model.batch import Batch
    from align.model.policy import Policy

UNIT = "dpo"


def bench_methods(options: argparse.Namespace) -> None:
    """Measure a step of each method and print the result."""
    from align.data import Preferences

    quiet(options.threads)
    load_before = os.getloadavg()[0]
    methods = offline_methods()
    with TemporaryDirectory() as scratch:
        preferences = Preferences.load(options.data, max_rejected=1.0)
        tokenizer = train_tokenizer(preferences, options.vocabulary)
        save_random_llama(Path(scratch), tokenizer, options, positions=4 * options.max_length)
        policy = load_policy(Path(scratch), options)
        rows = [[example.index for example in step] for step in choose(preferences, tokenizer, methods[UNIT], options)]
        taken = {
            name: [_batch(preferences.select(step), policy, method, options) for step in rows]
            for name, method in methods.items()
        }
        courses = _take_turns(policy, methods, taken, options)
    result = {
        "benchmark": "methods",
        "settings": {
            **settings_of(options),
            "dtype": "float32",
            "model_parameters": policy.parameter_count()[1],
            "versions": versions(),
        },
        "sides": {
            name: {"seconds": spread(course.seconds), "cpu_seconds": spread(course.cpu_seconds)}
            for name, course in courses.items()
        },
        "ratios": {
            f"{name}/{UNIT}": {
                "seconds": ratios(course.seconds, courses[UNIT].seconds),
                "cpu_seconds": ratios(course.cpu_seconds, courses[UNIT].cpu_seconds),
            }
            for name, course in courses.items()
            if name != UNIT
        },
        "load_average_before": load_before,
    }
    report(result, options, print_table)


def offline_methods() -> dict[str, Method]:
    """Return each method of this project that learns from rows, with its defaults; that of the unit first."""
    from align.settings.registry import choices, load

    methods: dict[str, Method] = {name: load("methods", name)() for name in choices("methods", shipped=True)}
    names = sorted(methods, key=lambda name: (name != UNIT, name))
    return {name: methods[name] for name in names if methods[name].rollout is None}


def _batch(rows: Preferences, policy: Policy, method: Method, options: argparse.Namespace) -> Batch:
    """Return the rows of a step as the method reads them."""
    from align.model.batch import Batch

    data = tokenize(
        method.learns_from(rows),
        policy.tokenizer,
        max_length=4 * options.max_length,  # a ranker's question has both answers
        unit=method.unit,
        max_rejected=1.0,
    )
    return Batch.from_examples(data)


def _take_turns(
    policy: Policy, methods: dict[str, Method], taken: dict[str, list[Batch]], options: argparse.Namespace
) -> dict[str, Measurement]:
    for method in methods.values():
        policy.require(method.roles)
    steppers = {name: make_stepper(policy, method, options) for name, method in methods.items()}
    courses = {name: Measurement() for name in methods}
    for step in range(options.warmup + options.steps):
        for name, course in courses.items():
            if step == options.warmup:
                courses[name] = course = Measurement()
            course.start()
            steppers[name].step(taken[name][step])
            course.stop()
    return courses


def print_table(result: dict[str, Any]) -> None:
    """Print the time of each method's step."""
    from rich.console import Console
    from rich.table import Table

    settings, console = result["settings"], Console()
    table = Table(
        *("", "seconds", f"of {UNIT}", "quartiles", "CPU time"),
        title=f"A step on {settings['pairs']} pairs, medians of {settings['steps']}",
    )
    for name, side in result["sides"].items():
        ratio = result["ratios"].get(f"{name}/{UNIT}")
        table.add_row(
            name,
            f"{side['seconds']['median']:.2f}",
            f"{ratio['seconds']['median']:.2f}" if ratio else "1",
            quartiles(ratio["seconds"], 2) if ratio else "",
            f"{ratio['cpu_seconds']['median']:.2f}" if ratio else "1",
        )
    console.print(table)
