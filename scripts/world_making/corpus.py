"""Demonstrations and evaluation prompts as rows of the pairwise format, and writing rows to a file."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from align.world.facts import World
from align.world.families import FAMILIES
from align.world.task import Split, Task, TaskSampler
from world_making.writers import DemonstrationWriter

Row = dict[str, Any]


def demonstrations(n: int, seed: int) -> list[Row]:
    """Return `n` demonstrations of mixed manners on distinct training prompts; `source` names the manner."""
    world = World.default()
    writer = DemonstrationWriter(world, seed)
    rows: list[Row] = []
    for i, task in enumerate(distinct_tasks("train", n, seed)):
        text, manner = writer.write(task)
        rows.append(_row(task, f"demo-{i:05d}", f"world/demonstration/{manner}", chosen=text))
    return rows


def evaluation_prompts(counts: Mapping[Split, int], seed: int) -> list[Row]:
    """Return prompts without answers; `source` is "world/<split>/<cluster>/<family>"."""
    rows: list[Row] = []
    for split, n in counts.items():
        for i, task in enumerate(distinct_tasks(split, n, seed)):
            rows.append(_row(task, f"{split}-{i:04d}", task_source(task, split)))
    return rows


def task_source(task: Task, split: Split) -> str:
    """Return "world/<split>/<cluster>/<family>"."""
    return f"world/{split}/{FAMILIES[task.goal.family].cluster}/{task.goal.family}"


def distinct_tasks(split: Split, n: int, seed: int) -> list[Task]:
    """Return `n` tasks of a split whose prompts all differ."""
    sampler = TaskSampler(FAMILIES, World.default(), split, seed)
    tasks: dict[str, Task] = {}
    while len(tasks) < n:
        task = sampler.draw()
        tasks.setdefault(task.prompt, task)
    return list(tasks.values())


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write gzipped JSON lines; equal rows give equal bytes."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def _row(task: Task, prompt_id: str, source: str, chosen: str | None = None) -> Row:
    return {
        "prompt": task.prompt,
        "chosen": chosen,
        "rejected": None,
        "prompt_id": prompt_id,
        "answer": task.goal.to_json(),
        "source": source,
    }
