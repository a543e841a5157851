"""Columns beside pairs that may say that the worse answer is chosen."""

from __future__ import annotations

from typing import Any

import pytest

from align.data import Preferences
from tests.align.data.unread_columns import PAIR, ROWS, loaded, prose, refusal, table

FLIPS: dict[str, Any] = {
    "p_chosen": lambda i: 0.4 + i / 100,
    "is_flipped": lambda i: i % 2 == 0,
    "swapped": lambda i: i % 2,
    "reversed": "yes",
    "chosen_index": 1,
    "chosen_is_better": False,
    "rejected_is_better": lambda i: i % 3 == 0,
    "is_chosen": lambda i: i % 2 == 0,
    "correct_label": lambda i: i % 2,
    "polarity": lambda i: [-1, 1][i % 2],
    "reward_gap": lambda i: 3 - i,
    "gold": lambda i: "AB"[i % 2],
    "order": lambda i: i % 2,
    "status": lambda i: ["as given", "swapped"][i % 2],
    "sign": lambda i: "+-"[i % 2],
    "agreement": lambda i: i % 2,
    "b_is_chosen": lambda i: i % 2 == 0,
    "meta.flipped": lambda i: {"flipped": i % 2 == 0},
    "human_agrees": lambda i: ["yes", "no", None, "tie"][i % 4],
    "judge_says": lambda i: ["chosen better", "rejected better"][i % 2],
    "is_noisy": lambda i: i % 2,
    "keep": lambda i: i % 2 == 0,
    "vertauscht": lambda i: i % 2 == 0,
    "annotator_agreement": lambda i: ["agree", "disagree"][i % 2],
    "majority": lambda i: ["A", "B", "equal"][i % 3],
    "gpt4": "rejected",
    "scores": lambda i: [[9, 2], [2, 9]][i % 2],
}


@pytest.mark.parametrize(
    ("names", "values", "refused"),
    [
        (("chosen_reward", "rejected_reward"), (9, 2), True),
        (("quality_chosen", "quality_rejected"), (0.9, 0.2), True),
        (("chosen_loss", "rejected_loss"), (1, 2), True),
        (("chosen_tokens", "rejected_tokens"), (9, 2), False),
    ],
)
def test_numbers_of_the_sides_that_contradict_them(
    names: tuple[str, str], values: tuple[float, float], refused: bool
) -> None:
    """In 2 of 24 rows they are against the sides, or in 8."""

    def against(every: int) -> dict[str, Any]:
        return {name: lambda i, k=k: values[k if i % every else 1 - k] + i / 1000 for k, name in enumerate(names)}

    assert loaded({**PAIR, **against(12)}).kept == ROWS
    if refused:
        assert f" {names[0]} may say that the worse answer is chosen" in refusal({**PAIR, **against(3)})
    else:
        assert loaded({**PAIR, **against(3)}).kept == ROWS


@pytest.mark.parametrize("name", FLIPS)
def test_what_may_turn_a_pair_round_is_refused(name: str) -> None:
    said = refusal({**PAIR, name.split(".")[0]: FLIPS[name]})
    assert f" {name} may say that the worse answer is chosen; data.format=pairwise" in said


def test_most_margins_against_the_sides_are_refused() -> None:
    assert loaded({**PAIR, "margin": lambda i: [-1, 1, 1][i % 3]}).noted == {"the margin is negative": 8}
    assert "the margin is negative in 16 of 24 rows" in refusal({**PAIR, "margin": lambda i: [-1, -1, 1][i % 3]})


def test_a_label_that_is_always_the_same_is_remarked_on() -> None:
    cells: dict[str, Any] = {"prompt": prose, "response_1": "a", "response_2": "b", "better": 1}
    assert loaded(cells).warnings == ("better is 1 in all 24 rows: is the better answer always at the same place?",)
    assert loaded(cells | {"better": lambda i: 1 + i % 2}).warnings == ()
    assert Preferences.from_rows(table(cells, 19)).report.warnings == ()
