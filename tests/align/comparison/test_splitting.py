"""Splits by prompts: sizes, and no prompt in two of them."""

from __future__ import annotations

import pytest

from align.comparison.splitting import split
from align.data import Preferences
from align.errors import UserError


def pairs(prompts: int) -> Preferences:
    rows = [
        {"prompt": f"Question {i}?", "chosen": f"Good {i}.{k}", "rejected": f"Bad {i}.{k}"}
        for i in range(prompts)
        for k in range(2)
    ]
    return Preferences.from_rows(rows)


def test_no_prompt_is_in_two_parts() -> None:
    made = split(pairs(100), None, heldout_size=None, judge=True, tuning=True, seed=0)
    questions = {name: set(part.questions()) for name, part in made.parts.items()}
    assert set(questions) == {"train", "heldout", "judge", "tuning"}
    assert sum(map(len, questions.values())) == 100
    assert len(set().union(*questions.values())) == 100
    assert len(questions["heldout"]) == 20
    assert len(questions["judge"]) == 24  # three tenths of the other 80
    assert len(questions["tuning"]) == 10
    assert len(made.train) == 2 * len(questions["train"])


def test_of_much_data_400_prompts_are_held_out() -> None:
    made = split(pairs(2500), None, heldout_size=None, judge=False, tuning=False, seed=0)
    assert len(set(made.heldout.questions())) == 400


@pytest.mark.parametrize(("size", "held"), [(0.5, 50), (7, 7)])
def test_the_users_size_holds(size: float, held: int) -> None:
    made = split(pairs(100), None, heldout_size=size, judge=False, tuning=False, seed=0)
    assert len(set(made.heldout.questions())) == held


def test_the_users_own_rows_are_held_out_as_they_are() -> None:
    own = Preferences.from_rows([{"prompt": "Mine?", "chosen": "a", "rejected": "b"}])
    made = split(pairs(30), own, heldout_size=None, judge=False, tuning=False, seed=0)
    assert made.heldout is own
    assert len(made.train) == 60


def test_too_few_prompts_are_refused() -> None:
    with pytest.raises(UserError, match="19 prompts are too few"):
        split(pairs(19), None, heldout_size=None, judge=False, tuning=False, seed=0)
