"""Rejection-sampling fine-tuning on arithmetic, after Yuan et al. (2023): accuracy against distinct paths.

Questions of the embedded world that can be solved in several orders (3+4 or 4+3, which two of three numbers first) have
one solution each, in a random order. SFT learns them. RFT draws k samples for each question from that model, keeps one
right sample for each list of equations, and trains all parameters of the pretrained model on them. The last RFT draws
from several models that differ in the order of their training data. All train for the same number of epochs, so that
more data means more steps, as in the paper; SFT for as many steps as the last RFT shows the effect of the steps alone.
The result is the accuracy of greedy answers to other questions.
"""

from __future__ import annotations

import argparse
import random
import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from align.evaluation import statistics
from benchmarks.measuring import settings_of, versions
from benchmarks.points import Points, bench_points, chart, interval

if TYPE_CHECKING:
    from align import Policy, Preferences
    from align.evaluation.evaluator import Evaluator
    from align.method.base import Method

FAMILIES = ("sum_add", "sum_two_steps", "sum_three_numbers")
"""The world's arithmetic families with more than one order that are not trivial; asked equally often."""
_LARGEST = 20
"""Largest number in a question or an answer; above it the small model lacks sums, not ways to them."""
_TOKENS = 64


def bench_paths(options: argparse.Namespace) -> None:
    """Train with each number of samples, draw the chart and print the result."""
    bench_points(
        "paths",
        options,
        measure=lambda options: _Comparison(options).points(),
        settings={**settings_of(options), "versions": versions()},
        plot=plot,
        print_table=print_table,
    )


class _Comparison:
    """The trainings of one seed, all from the same pretrained model."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.train = questions("train", options.questions, seed=options.seed)
        self.heldout = questions("seen", options.heldout, seed=0)
        self.baseline: list[float] = []

    def points(self) -> Points:
        """Return name of a training → its result."""
        from methods import RFT, SFT

        options, points = self.options, Points()
        policy, reached = self._fit(SFT(), self.train, "SFT")
        points["SFT"] = {**reached, "paths": 1.0}
        most = max(options.samples)
        for k, deduplicate in [*((k, True) for k in options.samples), (options.duplicates, False)]:
            name = f"RFT, k={k}" + ("" if deduplicate else ", duplicates kept")
            method = RFT(select="answer", samples=k, temperature=1.0, max_new_tokens=_TOKENS, deduplicate=deduplicate)
            points[name] = self._rejected(method, [policy], name)
        others = {f"SFT, seed {seed}": seed for seed in range(options.seed + 1, options.seed + options.pool)}
        pool = [policy, *(self._fit(SFT(), self.train, other, seed=seed)[0] for other, seed in others.items())]
        name = f"RFT, k={most} of {len(pool)} models"
        method = RFT(select="answer", samples=most, sources=tuple(others), temperature=1.0, max_new_tokens=_TOKENS)
        points[name] = self._rejected(method, pool, name)
        steps: int = points[name]["steps"]
        name = f"SFT, {steps} steps"
        points[name] = {**self._fit(SFT(), self.train, name, steps=steps)[1], "paths": 1.0}
        return points

    def _rejected(self, method: Method, pool: Sequence[Policy], name: str) -> dict[str, Any]:
        """Draw from the models of the pool, and train on the kept samples."""
        from align.candidates.drawing import draw
        from align.candidates.store import read_summary

        assert method.candidates is not None
        began = time.perf_counter()
        file = self.options.output / f"candidates-{name.replace(' ', '')}.jsonl"
        data = draw(pool, self.train, method.candidates, file, max_length=256, seed=self.options.seed)
        seconds, counts = time.perf_counter() - began, read_summary(file) or {}
        reached = self._fit(method, data, name)[1]
        paths = counts["paths_with_demonstration"] / counts["prompts"]
        return {**reached, "paths": paths, "counts": counts, "seconds_drawing": seconds}

    def _fit(
        self, method: Method, data: Preferences, name: str, *, seed: int | None = None, steps: int | None = None
    ) -> tuple[Policy, dict[str, Any]]:
        from align import Policy, Trainer, TrainerConfig

        options = self.options
        of: int = options.seed if seed is None else seed
        policy = Policy.load("world/base", adapter=None, seed=of, device="cpu")
        config = TrainerConfig(
            learning_rate=1e-3,
            batch_size=16,
            max_length=256,
            save_steps=None,
            seed=of,
            epochs=options.epochs if steps is None else None,
            steps=steps,
        )
        began = time.perf_counter()
        trainer = Trainer(policy, options.output / name.replace(" ", ""), config, if_exists="overwrite")
        done = trainer.fit(method, data)
        right = self._right(policy)
        self.baseline = self.baseline or right  # SFT is the first
        shares = {family: mean(right[i :: len(FAMILIES)]) for i, family in enumerate(FAMILIES)}
        return policy, {
            "accuracy": asdict(statistics.rate(right)),
            "gain": asdict(statistics.mean([new - old for new, old in zip(right, self.baseline, strict=True)])),
            "by_family": shares,
            "rows": len(data),
            "steps": done.steps,
            "seconds": time.perf_counter() - began,
        }

    def _right(self, policy: Policy) -> list[float]:
        """Return 1 for each held-out question with a right greedy answer, else 0."""
        return [sample.scores["math"] for sample in _evaluator(policy, self.heldout).measure(policy).samples]


def questions(split: str, n: int, *, seed: int) -> Preferences:
    """Return distinct questions with their answer, and a solution in one order as ``chosen``; families take turns."""
    from align import Preferences
    from align.world import FAMILIES as ALL
    from align.world import TaskSampler, World
    from align.world.families.arithmetic import solutions

    rng = random.Random(f"paths-{split}-{seed}")
    sampler = TaskSampler(ALL, World.default(), "train" if split == "train" else "seen", seed)
    found: dict[str, dict[str, Any]] = {}
    while len(found) < n:
        task = sampler.draw_from(ALL[FAMILIES[len(found) % len(FAMILIES)]])
        if max(int(number) for step in task.goal.key["steps"] for number in re.findall(r"\d+", step)) > _LARGEST:
            continue
        solution = rng.choice(rng.choice(solutions(task.goal)))
        row = {"prompt": task.prompt, "chosen": solution, "rejected": None, "answer": str(task.goal.key["answer"])}
        found.setdefault(task.prompt, row)
    return Preferences.from_rows(list(found.values()), name=f"arithmetic, {split}")


def _evaluator(policy: Policy, heldout: Preferences) -> Evaluator:
    from align import Evaluator, SamplingParams
    from reward.verifiers.math_answers import Math

    return Evaluator.from_preferences(
        policy,
        prompts=heldout,
        pairs=None,
        max_length=256,
        scorers=[Math()],
        sampling=SamplingParams(temperature=0, max_new_tokens=_TOKENS),
    )


def plot(points: Points, picture: Path) -> None:
    """Plot accuracy against distinct paths per question, with intervals."""
    chart(
        points,
        "paths",
        "accuracy",
        picture,
        xlabel="distinct paths per question, demonstration included",
        ylabel="accuracy of greedy answers",
        title="RFT on arithmetic: held-out questions, 95 % intervals",
    )


def print_table(points: Points) -> None:
    """Print one line per point."""
    print(f"{'':32}{'accuracy':>24}{'over SFT':>26}{'paths':>7}{'rows':>7}{'steps':>7}")
    for name, point in points.items():
        accuracy, gain = (interval(point[value]) for value in ("accuracy", "gain"))
        print(f"{name:32}{accuracy:>24}{gain:>26}{point['paths']:7.2f}{point['rows']:7}{point['steps']:7}")
