"""Majority votes: counts by hand, ties, samples without an answer, forms of one number, errors."""

from __future__ import annotations

import pytest

from align.errors import UserError
from reward.verifiers.voting import maj1_at_k, majority_answer


@pytest.mark.parametrize(
    ("answers", "winner"),
    [
        (["7", "8", "8"], "8"),
        (["7", "8"], "7"),
        (["7", "8", "8", "7"], "8"),  # 8 is the first to reach two votes
        (["7", None, None, "8", "8"], "8"),
        ([None, None, "7"], "7"),
        ([None], ""),
        ([], ""),
        (["7", "8", "$7.00"], "$7.00"),
        (["8", "7", "7 apples", "8.0", "07"], "07"),
        (["12%", "12", ".12"], "12%"),  # three answers
        (["x", "7", "x"], "x"),
        (["1/2", "7", "0.5"], "0.5"),
    ],
)
def test_majority(answers: list[str | None], winner: str) -> None:
    responses = ["it is 7" if answer is None else f"So\n#### {answer}" for answer in answers]
    assert majority_answer(responses) == winner


def test_accuracy_over_k() -> None:
    """First votes: 1 and 2 right. Three votes: 1, 2 right (7 by 2 to 1; 9 by 2 to 1), 3 wrong, 4 without a vote."""
    responses = [
        ["#### 7", "#### 8", "#### 7"],
        ["A: 9 eggs", "A: 9", "A: 1"],
        ["#### 4", "#### 5", "#### 5"],
        ["six", "", "6"],
    ]
    answers = ["7", "3*3=<<3*3=9>>9\n#### 9", "4", "6"]
    assert maj1_at_k(responses, answers, k=1) == 3 / 4
    assert maj1_at_k(responses, answers, k=2) == 3 / 4
    assert maj1_at_k(responses, answers, k=3) == maj1_at_k(responses, answers) == 2 / 4


def test_an_answer_only_a_hundredth_apart_is_right_but_no_common_vote() -> None:
    assert maj1_at_k([["#### 12%"]], ["0.12"]) == 1
    assert maj1_at_k([["#### 12%", "#### 3", "#### 3", "#### 0.12"]], ["0.12"]) == 0


def test_thinking_does_not_vote() -> None:
    """Nor where the prompt has opened it; the right answer may be a solution that ends in it."""
    responses = ["<think>\\boxed{7}</think>#### 8", "#### 7</think>#### 8", "<think>#### 7", "#### 9", "#### 9"]
    assert majority_answer(responses[:4]) == "8"
    assert majority_answer(responses) == "8"  # 8 reached two votes before 9
    assert maj1_at_k([responses], ["It is 7.\n#### 8"]) == 1
    assert maj1_at_k([responses], ["It is 8.\n#### 7"]) == 0
    assert maj1_at_k([responses, responses], ["8", "9"]) == 0.5


def test_only_the_first_votes_count() -> None:
    responses = [["#### 1", "#### 2", "#### 2"]]
    assert [maj1_at_k(responses, ["2"], k) for k in (1, 2, 3)] == [0, 0, 1]


@pytest.mark.parametrize(
    ("responses", "answers", "k", "message"),
    [
        ([], [], None, "0 lists of responses for 0 answers"),
        ([["#### 7"]], ["7", "8"], None, "1 lists of responses for 2 answers"),
        ([["#### 7"], []], ["7", "8"], None, "question 1 has 0 samples"),
        ([["#### 7"]], ["7"], 2, "question 0 has 1 samples for k=2; sample more or lower k"),
        ([["#### 7"]], ["7"], 0, "for k=0"),
        ([["#### 7"]], [" "], None, "question 0 has no answer"),
    ],
)
def test_errors(responses: list[list[str]], answers: list[str], k: int | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        maj1_at_k(responses, answers, k)
