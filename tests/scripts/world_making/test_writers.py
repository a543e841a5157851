from __future__ import annotations

import pytest
from world_making.writers import SHARES, DemonstrationWriter

from align.world import FAMILIES, Task, TaskSampler, TrueReward, World
from align.world.task import Split

WORLD = World.default()


def draw(split: Split, n: int, seed: int) -> list[Task]:
    sampler = TaskSampler(FAMILIES, WORLD, split, seed)
    return [sampler.draw() for _ in range(n)]


@pytest.mark.parametrize("split", ["train", "family"])
def test_manners_are_ranked_as_they_should_be(split: Split):
    writer, reward = DemonstrationWriter(WORLD, 0), TrueReward()
    for task in draw(split, 1500, seed=0):
        scores = {manner: reward.judge(task.goal, writer.write(task, manner)[0]).reward for manner in SHARES}
        assert scores["good"] >= 0.9, (task, scores)
        assert 0.75 <= scores["plain"] < scores["good"], (task, scores)
        assert max(scores["curt"], scores["rude"]) < scores["plain"], (task, scores)
        assert scores["rambling"] < scores["good"], (task, scores)
        assert scores["careless"] < scores["plain"], (task, scores)


def test_more_of_what_counts_is_never_worse():
    writer, reward = DemonstrationWriter(WORLD, 1), TrueReward()
    for task in draw("seen", 120, seed=7):
        good, _ = writer.write(task, "good")
        assert reward.judge(task.goal, good).reward > reward.judge(task.goal, task.careless).reward
