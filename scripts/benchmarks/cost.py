"""Time and memory of RRHF, SLiC-HF, RFT and DPO relative to PPO, on the same prompts.

For each batch of prompts PPO draws K responses per prompt, scores them, asks reference and value, and updates. The
others draw and score once per prompt (``draw``) and then make optimiser steps on the drawn responses. These steps are
measured on rankings of random token ids as long as PPO's responses: the cost of a step does not depend on its tokens,
and so its peak of memory does not include the drawing.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import online
from benchmarks.measuring import quartiles, report
from benchmarks.ours import load_policy, make_stepper
from benchmarks.turns import Course, Side, Turn

if TYPE_CHECKING:
    from align.data import Example

_LABELS = {
    "ppo": "PPO, roll-out and update: policy, reference, reward, value",
    "draw": "drawing and scoring: policy, reward",
    "rrhf": "RRHF, step on all K: policy",
    "slic": "SLiC-HF, step on all comparisons of K: policy",
    "rft": "RFT, step on the best of K: policy",
    "dpo": "DPO, step on best and worst of K: policy, reference",
}
_LEARNT: Mapping[str, Sequence[int] | None] = {"rrhf": None, "slic": None, "rft": (0,), "dpo": (0, -1)}
"""Indices in a ranking, best first, of the responses that a step learns from; None: all."""


def bench_cost(options: argparse.Namespace) -> None:
    """Measure PPO, the drawing of candidates and a step of each method on them, and print the result."""
    from align.errors import UserError
    from methods.rrhf import RRHF

    if options.responses < 2:
        raise UserError(f"--responses={options.responses}: a ranking needs two responses; raise it.")
    sides: dict[str, Side] = {
        "ppo": partial(online.train_ours, advantage="gae", reward="role"),
        "draw": _draw,
        **{name: partial(_learn, name=name) for name in _LEARNT},
    }
    compared = [(name, "ppo") for name in sides if name != "ppo"]
    result, courses = online.measure("cost", sides, options, compared)
    epochs = RRHF.optimization.epochs
    trainings = {name: training(courses["draw"], courses[name], epochs) for name in _LEARNT}
    result["epochs"] = epochs
    result["trainings"] = {name: online.compare(whole, courses["ppo"]) for name, whole in trainings.items()}
    report(result, options, print_table)


def training(draw: Course, step: Course, epochs: float) -> Course:
    """Return the cost of drawing once and training for ``epochs``: the sum of the times, the larger peak."""
    return Course(
        seconds=[d + epochs * s for d, s in zip(draw.seconds, step.seconds, strict=True)],
        cpu_seconds=[d + epochs * s for d, s in zip(draw.cpu_seconds, step.cpu_seconds, strict=True)],
        peak_mib=max(draw.peak_mib, step.peak_mib),
    )


def _draw(turn: Turn, options: argparse.Namespace, folder: Path) -> None:
    """Draw K candidates per prompt, and compute the scalars of the reward role."""
    from align.model.batch import Batch
    from align.sampling.params import SamplingParams
    from align.sampling.sampler import Sampler
    from align.scoring.reward_role import role_scores
    from align.system.randomness import derived_seed

    policy = load_policy(folder, options)
    policy.require(["reward"])
    sampler = Sampler(policy, SamplingParams(max_new_tokens=options.tokens, min_new_tokens=options.tokens))
    for number, examples in enumerate(online.prompts_of_steps(policy, options, folder)):
        turn.begin()
        prompt_ids = tuple(example.prompt_ids for example in examples)
        drawn = sampler.generate(prompt_ids, n=options.responses, seed=derived_seed(options.seed, number))
        response_ids = tuple(tuple(response.ids for response in row) for row in drawn)
        batch = Batch(prompt_ids=prompt_ids, response_ids=response_ids, rows=tuple(range(len(drawn))))
        role_scores(policy, batch, tokens=options.tokens_per_microbatch)
        turn.end()


def _learn(turn: Turn, options: argparse.Namespace, folder: Path, *, name: str) -> None:
    """Make optimiser steps of one method."""
    from align.method.base import Method
    from align.model.batch import Batch
    from methods import DPO, RFT, RRHF, SLiC

    methods: dict[str, Method] = {"rrhf": RRHF(), "slic": SLiC(), "rft": RFT(), "dpo": DPO()}
    policy = load_policy(folder, options)
    policy.require(methods[name].roles)
    stepper = make_stepper(policy, methods[name], options)
    generator = random.Random(options.seed)
    for examples in online.prompts_of_steps(policy, options, folder):
        data = [learnt(ranking(example, generator, options), name) for example in examples]
        turn.begin()
        stepper.step(Batch.from_examples(data))
        turn.end()


def ranking(prompt: Example, generator: random.Random, options: argparse.Namespace) -> Example:
    """Return a ranking of K random responses to a prompt, as long as PPO's, the best first."""
    K = options.responses
    return replace(
        prompt,
        responses=[generator.choices(range(options.vocabulary), k=options.tokens) for _ in range(K)],
        scores=[float(K - k) for k in range(K)],
        comparisons=list(combinations(range(K), 2)),
    )


def learnt(example: Example, name: str) -> Example:
    """Return the part of a ranking that the method of this name learns from."""
    places = _LEARNT[name] or range(len(example.responses))
    return replace(
        example,
        responses=[example.responses[k] for k in places],
        scores=[example.scores[k] for k in places],
        comparisons=list(combinations(range(len(places)), 2)),
    )


def print_table(result: Mapping[str, Any]) -> None:
    """Print the cost of each step, and of whole trainings relative to PPO."""
    from rich.console import Console
    from rich.table import Table

    online.print_table(result, _LABELS)
    console, epochs = Console(), result["epochs"]
    table = Table("", "time", "quartiles", "CPU time", "peak", title=f"Drawn once, {epochs} epochs; PPO = 1")
    for name, ratio in result["trainings"].items():
        seconds = ratio["seconds"]
        table.add_row(
            _LABELS[name].partition(",")[0],
            f"{seconds['median']:.3f}",
            quartiles(seconds),
            f"{ratio['cpu_seconds']['median']:.3f}",
            f"{ratio['peak']:.3f}",
        )
    console.print(table)
    console.print(
        f"PPO draws once for each prompt and makes one update; {epochs} passes over the prompts cost it {epochs} times "
        "as much. Times are ratios step by step; the peak is the larger one of drawing and training."
    )
