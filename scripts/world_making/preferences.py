"""Preference pairs: responses of the SFT model, ranked by the noisy annotator."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from align.model.policy import Policy
from align.world.reward import TrueReward
from align.world.task import Split, Task
from world_making.annotator import Annotator, Rated
from world_making.corpus import Row, distinct_tasks, task_source
from world_making.generation import generate


@dataclass(frozen=True, kw_only=True)
class PairPlan:
    """The number of prompts for each number K of distinct ranked responses; a ranking gives all K(K−1)/2 pairs."""

    prompts: Mapping[int, int]
    split: Split
    seed: int
    temperature: float = 0.7


@dataclass(frozen=True)
class Candidates:
    """Distinct responses to one prompt with their true rewards."""

    task: Task
    texts: list[str]
    rewards: list[float]


@dataclass(frozen=True)
class Labelled:
    """Rows of the pairwise format and the annotator's disagreement with the true reward."""

    rows: list[Row]
    disagreement: float  # share of the pairs with unequal true rewards whose label contradicts them


def sample_candidates(policy: Policy, plan: PairPlan, skip: set[str]) -> list[Candidates]:
    """Sample responses to prompts that are not in `skip`; a prompt with too few distinct samples is replaced."""
    spares = {size: n // 5 + 4 for size, n in plan.prompts.items()}
    wanted = sum(plan.prompts.values()) + sum(spares.values())
    tasks = iter([t for t in distinct_tasks(plan.split, wanted + len(skip), plan.seed) if t.prompt not in skip])
    found: list[Candidates] = []
    for size, n in plan.prompts.items():
        batch = list(itertools.islice(tasks, n + spares[size]))
        found += itertools.islice(_distinct(policy, batch, size, plan), n)
    return found


def label_pairs(candidates: Sequence[Candidates], annotator: Annotator, split: Split) -> Labelled:
    """Rank the responses of each prompt and return all pairs of each ranking."""
    rows: list[Row] = []
    contradictions = comparable = 0
    for i, entry in enumerate(candidates):
        ranking = annotator.rank(entry.texts, entry.rewards)
        for better, worse in itertools.combinations(ranking, 2):
            if "\0" in better.text + worse.text:  # a byte-level model may write it, the pairwise format rejects it
                continue
            rows.append(_row(entry.task, better, worse, f"{split}-pairs-{i:05d}", split))
            comparable += better.reward != worse.reward
            contradictions += better.reward < worse.reward
    return Labelled(rows, contradictions / max(1, comparable))


def reward_gaps(candidates: Sequence[Candidates]) -> list[float]:
    """Return the differences of the true reward within all pairs."""
    return [a - b for entry in candidates for a, b in itertools.combinations(entry.rewards, 2)]


def _distinct(policy: Policy, tasks: Sequence[Task], size: int, plan: PairPlan) -> Iterator[Candidates]:
    reward = TrueReward()
    prompts = [task.prompt for task in tasks]
    answers = generate(policy, prompts, n=size + 2, temperature=plan.temperature, seed=plan.seed + size)
    for task, texts in zip(tasks, answers, strict=True):
        distinct = list(dict.fromkeys(text.strip() for text in texts if text.strip()))[:size]
        if len(distinct) == size:
            yield Candidates(task, distinct, [reward.judge(task.goal, text).reward for text in distinct])


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
