"""Data sets of the embedded world by their settings and a seed: demonstrations, prompts, sums."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from string import Formatter
from typing import Any

from world_making.corpus import task_source
from world_making.writers import DemonstrationWriter

from align.system.files import write_text
from align.world import FAMILIES, Family, Split, TaskSampler, World
from align.world.task import Task

__all__ = ["make"]

Row = dict[str, Any]
_OF_PROMPTS = 7_000
"""Seed of all prompts that are reported; those that settings were chosen on have others."""
_LARGEST = 20
"""Largest number of a sum; above it the small model lacks sums, not ways to them."""


def make(settings: Mapping[str, Any], seed: int, file: Path) -> None:
    """Write a data set as JSON lines; ``settings`` are its kind, under ``make``, and the arguments of its function."""
    import json

    arguments = {name: value for name, value in settings.items() if name != "make"}
    rows = _KINDS[settings["make"]](seed=seed, **arguments)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, "".join(json.dumps(row) + "\n" for row in rows))


def _demonstrations(
    *,
    n: int,
    seed: int,
    families: int | list[str] | None = None,
    clusters: int | list[str] | None = None,
    without: list[str] | None = None,
    manner: str | None = "good",
    wordings: int | None = None,
    inputs_only: bool = False,
) -> list[Row]:
    """Answered tasks with training goals, drawn with replacement.

    Args:
        n: Rows; families come equally often.
        seed: Of everything random.
        families: Names, or so many of those that occur in training, other ones for each seed; None: all.
        clusters: Likewise.
        without: Clusters that are left out.
        manner: ``good``, ``plain`` …; None: mixed, as people write.
        wordings: Of each instruction, the first so many; None: all five that occur in training.
        inputs_only: Without an instruction, only what it is about.
    """
    rng = random.Random(f"families-{seed}")
    chosen = [family for family in FAMILIES.values() if not family.held_out and family.cluster not in (without or [])]
    names = sorted({family.cluster for family in chosen})
    if isinstance(clusters, int):
        clusters = rng.sample(names, clusters)
    if clusters is not None:
        chosen = [family for family in chosen if family.cluster in clusters]
    if isinstance(families, int):
        families = _spread(chosen, families, rng)
    if families is not None:
        chosen = [FAMILIES[name] for name in families]
    chosen = [_reworded(family, wordings, inputs_only=inputs_only) for family in chosen]
    world = World.default()
    sampler, writer = TaskSampler(FAMILIES, world, "train", seed), DemonstrationWriter(world, seed)
    rows: list[Row] = []
    for number in range(n):
        task = sampler.draw_from(chosen[number % len(chosen)])
        text, written = writer.write(task, manner)
        rows.append(_row(task, f"demonstration-{number}", f"world/demonstration/{written}", chosen=text))
    random.Random(f"order-{seed}").shuffle(rows)
    return rows


def _spread(families: list[Family], count: int, rng: random.Random) -> list[str]:
    """Choose families, of other clusters as long as there are any."""
    clusters: dict[str, list[str]] = {}
    for family in families:
        clusters.setdefault(family.cluster, []).append(family.name)
    for names in clusters.values():
        rng.shuffle(names)
    order = rng.sample(sorted(clusters), len(clusters))
    rounds = [clusters[name][turn] for turn in range(len(families)) for name in order if turn < len(clusters[name])]
    return rounds[:count]


def _reworded(family: Family, wordings: int | None, *, inputs_only: bool) -> Family:
    """Return the family with fewer wordings; the last one is held out and stays."""
    *seen, last = family.templates
    if inputs_only:
        names = dict.fromkeys(name for _, name, _, _ in Formatter().parse(seen[0]) if name)
        seen = [" ".join(f"{{{name}}}" for name in names)]
    return dataclasses.replace(family, templates=(*seen[:wordings], last))


def _prompts(
    *,
    n: int,
    seed: int,
    split: Split = "seen",
    families: list[str] | None = None,
    clusters: list[str] | None = None,
    manner: str = "good",
    of: int = _OF_PROMPTS,
) -> list[Row]:
    """Distinct held-out prompts, the same for every seed, with an answer in the best manner for the loss.

    Args:
        n: Rows; families come equally often.
        seed: Not used.
        split: ``seen`` (other goals), ``template`` (another wording too), ``family`` (other tasks).
        families: Names; None: all of the split.
        clusters: Likewise.
        manner: Of the answers.
        of: Seed of the prompts.
    """
    del seed
    chosen = [
        family
        for family in FAMILIES.values()
        if family.held_out == (split == "family")
        and (families is None or family.name in families)
        and (clusters is None or family.cluster in clusters)
    ]
    world = World.default()
    sampler, writer = TaskSampler(FAMILIES, world, split, of), DemonstrationWriter(world, of)
    rows: dict[str, Row] = {}
    tries = 0
    while len(rows) < n and tries < 50 * n:
        task = sampler.draw_from(chosen[tries % len(chosen)])
        tries += 1
        if task.prompt not in rows:
            row = _row(task, f"{split}-{len(rows)}", task_source(task, split), chosen=writer.write(task, manner)[0])
            rows[task.prompt] = row
    return list(rows.values())


def _sums(*, n: int, seed: int, split: str = "train", of: int | None = None) -> list[Row]:
    """Distinct sums that can be put together in several orders, with one solution each in a random order.

    Args:
        n: Rows; the three families come in turns.
        seed: Of everything random, unless ``of`` is given.
        split: ``train`` or ``seen``, with other numbers.
        of: Seed of prompts that are the same for all runs.
    """
    from align.world.families.arithmetic import solutions

    families = ("sum_add", "sum_two_steps", "sum_three_numbers")
    key = seed if of is None else of
    rng = random.Random(f"sums-{split}-{key}")
    sampler = TaskSampler(FAMILIES, World.default(), "train" if split == "train" else "seen", key)
    found: dict[str, Row] = {}
    while len(found) < n:
        task = sampler.draw_from(FAMILIES[families[len(found) % len(families)]])
        if max(int(number) for step in task.goal.key["steps"] for number in re.findall(r"\d+", step)) > _LARGEST:
            continue
        row = {"prompt": task.prompt, "chosen": rng.choice(rng.choice(solutions(task.goal))), "rejected": None}
        found.setdefault(task.prompt, {**row, "answer": str(task.goal.key["answer"])})
    return list(found.values())


def _world(*, name: str, seed: int, n: int | None = None) -> list[Row]:
    """Rows of a file of the world; with ``n``, so many at random."""
    from align.world import asset, read_rows

    rows = read_rows(asset(name))
    return rows if n is None else random.Random(f"{name}-{seed}").sample(rows, n)


def _row(task: Task, name: str, source: str, *, chosen: str) -> Row:
    return {
        "prompt": task.prompt,
        "chosen": chosen,
        "rejected": None,
        "prompt_id": name,
        "answer": task.goal.to_json(),
        "source": source,
    }


_KINDS: dict[str, Callable[..., list[Row]]] = {
    "demonstrations": _demonstrations,
    "prompts": _prompts,
    "sums": _sums,
    "world": _world,
}
