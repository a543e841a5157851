from __future__ import annotations

import re

import pytest

from align.world import FAMILIES, Goal, Task, TaskSampler, TrueReward, World
from align.world.families.arithmetic import solutions
from align.world.task import OPENERS, Split

WORLD = World.default()


def draw(split: Split, n: int, seed: int = 0) -> list[Task]:
    sampler = TaskSampler(FAMILIES, WORLD, split, seed)
    return [sampler.draw() for _ in range(n)]


def body(prompt: str) -> str:
    for opener in OPENERS:
        prompt = prompt.removeprefix(opener)
    return prompt


def test_the_world_is_wide():
    assert len(FAMILIES) >= 24
    assert len({family.cluster for family in FAMILIES.values()}) >= 6
    for family in FAMILIES.values():
        assert len(set(family.templates)) >= 6, family.name  # five, and one held out
    assert sum(family.held_out for family in FAMILIES.values()) >= 5


def test_tasks_are_decided_by_the_seed():
    assert draw("train", 50, seed=3) == draw("train", 50, seed=3)
    assert draw("train", 50, seed=3) != draw("train", 50, seed=4)


def test_training_never_sees_what_is_held_out():
    tasks = draw("train", 3000)
    assert not any(FAMILIES[task.goal.family].held_out for task in tasks)
    assert all(task.template < len(FAMILIES[task.goal.family].templates) - 1 for task in tasks)
    assert not any(task.goal.is_held_out for task in tasks)
    prompts = {body(task.prompt) for task in tasks}
    for split in ("seen", "template", "family"):
        assert not prompts & {body(task.prompt) for task in draw(split, 1000)}, split


def test_splits_hold_what_their_names_say():
    assert all(task.goal.is_held_out for split in ("seen", "template") for task in draw(split, 300))
    assert all(task.template == len(FAMILIES[task.goal.family].templates) - 1 for task in draw("template", 300))
    assert all(FAMILIES[task.goal.family].held_out for task in draw("family", 300))


def test_every_family_is_drawn_and_answers_vary():
    tasks = draw("train", 3000)
    families = {task.goal.family for task in tasks}
    assert families == {name for name, family in FAMILIES.items() if not family.held_out}
    assert sum(len(task.references) >= 2 for task in tasks) == len(tasks)


def test_all_references_are_good_answers():
    reward = TrueReward()
    for task in [*draw("train", 500), *draw("family", 200)]:
        for reference in task.references:
            assert reward.judge(task.goal, f"Of course. {reference}").reward >= 0.95, (task.prompt, reference)


def test_goals_survive_json():
    for task in draw("train", 200):
        goal = Goal.from_json(task.goal.to_json())
        assert goal.to_json() == task.goal.to_json()
        assert goal.is_held_out == task.goal.is_held_out


@pytest.mark.parametrize("text", ["", "42", "[]", "{}", '{"family": "x"}', "null"])
def test_other_answer_columns_are_refused(text: str):
    with pytest.raises(ValueError, match="answer column"):
        Goal.from_json(text)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([["count", "Leo", "7", "nuts"], ["gets", "Leo", "3", "nuts"]], {"7+3=10", "3+7=10"}),
        ([["count", "Leo", "7", "nuts"], ["gives", "Leo", "3", "nuts"]], {"7-3=4"}),
        ([["each", "nuts", "7"], ["wants", "Leo", "3", "nuts"]], {"7*3=21", "3*7=21"}),
        (  # 4 is not taken from the 3
            [["count", "Leo", "7", "nuts"], ["gets", "Leo", "3", "nuts"], ["gives", "Leo", "4", "nuts"]],
            {"7+3=10 10-4=6", "3+7=10 10-4=6", "7-4=3 3+3=6"},
        ),
        (  # nor 7 from 7
            [["count", "Leo", "7", "nuts"], ["gets", "Leo", "3", "nuts"], ["gives", "Leo", "7", "nuts"]],
            {"7+3=10 10-7=3", "3+7=10 10-7=3"},
        ),
        (
            [["count", "Leo", "2", "nuts"], ["gets", "Leo", "3", "nuts"], ["gets", "Leo", "5", "nuts"]],
            {
                *("2+3=5 5+5=10", "3+2=5 5+5=10", "2+5=7 7+3=10", "2+5=7 3+7=10", "5+2=7 7+3=10", "5+2=7 3+7=10"),
                *("3+5=8 8+2=10", "3+5=8 2+8=10", "5+3=8 8+2=10", "5+3=8 2+8=10"),
            },
        ),
    ],
)
def test_sums_are_solved_in_every_order(given: list[list[str]], expected: set[str]):
    answer = int(next(iter(expected)).rpartition("=")[2])
    found = solutions(Goal("sum", "equations", {"answer": answer, "given": given}, 30))
    orders = [{" ".join(re.findall("<<(.*?)>>", text)) for text in wordings} for wordings in found]
    assert all(len(order) == 1 for order in orders)
    assert len(found) == len(expected)
    assert set.union(*orders) == expected
    assert all(text.endswith(f"\n#### {answer}") for wordings in found for text in wordings)


def test_the_references_of_a_sum_are_one_of_its_orders():
    sums = [task for split in ("train", "family") for task in draw(split, 500) if task.goal.family.startswith("sum_")]
    assert len({task.goal.family for task in sums}) == 5
    assert all(task.references in solutions(task.goal) for task in sums)
