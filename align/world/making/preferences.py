"""Preference pairs: responses of the SFT model, ranked by the noisy annotator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from transformers import PreTrainedTokenizerFast

from align.world.annotator import Annotator, Rated
from align.world.making.corpus import Row, distinct_tasks, task_source
from align.world.making.generation import generate
from align.world.reward import TrueReward
from align.world.task import Split, Task


@dataclass(frozen=True, kw_only=True)
class PairPlan:
    """How many prompts get how many distinct ranked responses: {K: prompts}; a ranking gives all K(K−1)/2 pairs."""

    prompts: Mapping[int, int]
    split: Split
    seed: int
    temperature: float = 1.0


@dataclass(frozen=True)
class Labelled:
    """Rows in the shared format and how often the annotator was at odds with the true reward."""

    rows: list[Row]
    disagreement: float  # share of the pairs of unequal true reward whose label contradicts it


def label_pairs(model: Any, tokenizer: PreTrainedTokenizerFast, plan: PairPlan, skip: set[str]) -> Labelled:
    """Sample, rank and pair responses; prompts in `skip` are left out, as are prompts with too few distinct responses."""
    annotator, reward = Annotator(plan.seed), TrueReward()
    sizes = [size for size, n in sorted(plan.prompts.items(), reverse=True) for _ in range(n)]
    spare = len(sizes) // 5 + 20
    tasks = [
        task for task in distinct_tasks(plan.split, len(sizes) + spare, plan.seed) if task.prompt not in skip
    ]
    rows: list[Row] = []
    contradictions = comparable = 0
    waiting = list(sizes)
    for size in sorted(set(sizes), reverse=True):
        n = sum(other == size for other in waiting)
        chosen, tasks = tasks[: n + n // 5 + 4], tasks[n + n // 5 + 4 :]
        answers = generate(
            model, tokenizer, [t.prompt for t in chosen], n=size + 2, temperature=plan.temperature, seed=plan.seed + size
        )
        ranked = [
            (task, _rank(task, texts, size, annotator, reward))
            for task, texts in zip(chosen, answers, strict=True)
            if len(set(_written(texts))) >= size
        ][:n]
        for task, ranking in ranked:
            prompt_id = f"{plan.split}-pairs-{size}-{len(rows):05d}"
            for better, worse in combinations(ranking, 2):
                rows.append(_row(task, better, worse, prompt_id, plan.split))
                comparable += better.reward != worse.reward
                contradictions += better.reward < worse.reward
    return Labelled(rows, contradictions / max(1, comparable))


def _written(texts: Sequence[str]) -> list[str]:
    return [text.strip() for text in texts if text.strip()]


def _rank(task: Task, texts: Sequence[str], size: int, annotator: Annotator, reward: TrueReward) -> list[Rated]:
    distinct = list(dict.fromkeys(_written(texts)))[:size]
    return annotator.rank(distinct, [reward.judge(task.goal, text).reward for text in distinct])


def _row(task: Task, better: Rated, worse: Rated, prompt_id: str, split: Split) -> Row:
    return {
        "prompt": task.prompt,
        "chosen": better.text,
        "rejected": worse.text,
        "chosen_score": better.rating,
        "rejected_score": worse.rating,
        "prompt_id": prompt_id,
        "answer": task.goal.to_json(),
        "source": task_source(task, split),
    }
