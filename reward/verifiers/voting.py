"""Accuracy of the majority vote over samples: maj1@1, maj1@k (self-consistency; Wang et al. 2022).

A response votes for its marked final answer (``final_answer.marked_answer``: ``#### 7``, ``\\boxed{7}``, "A: 7", "The
answer is 7"); a response without one does not vote. Equal numbers are one answer, however written (7, $7.00, 7
apples).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

from align.errors import UserError
from reward.tags import without_thinking
from reward.verifiers.final_answer import marked_answer
from reward.verifiers.math_answers import answer_key, compare

__all__ = ["maj1_at_k", "majority_answer"]


def maj1_at_k(responses: Sequence[Sequence[str]], answers: Sequence[str], k: int | None = None) -> float:
    """Return the share of questions whose majority answer is right; without any vote it is wrong.

    Args:
        responses: Samples of each question; the first k vote, so one list gives the whole curve over k.
        answers: The right answer of each question, or a solution that ends in it.
        k: Votes per question; default: all. With k=1 and greedy responses this is maj1@1, plain accuracy.

    Raises:
        UserError: There is no question, or one has no answer or fewer than k samples.
    """
    if not answers or len(answers) != len(responses):
        raise UserError(f"maj1@k: {len(responses)} lists of responses for {len(answers)} answers; give one list each.")
    right = 0
    for number, (row, gold) in enumerate(zip(responses, answers, strict=True)):
        votes = len(row) if k is None else k
        if not 1 <= votes <= len(row):
            raise UserError(f"maj1@k: question {number} has {len(row)} samples for k={votes}; sample more or lower k.")
        if not gold.strip():
            raise UserError(f"maj1@k: question {number} has no answer; fill the column `answer`.")
        winner = majority_answer(row[:votes])
        right += bool(winner) and compare(winner, marked_answer(gold) or gold).score == 1
    return right / len(answers)


def majority_answer(responses: Sequence[str]) -> str:
    """Return the final answer of most responses, as written in the deciding vote; "" without any vote.

    In a tie, the answer that reached the number of votes first wins.
    """
    votes: Counter[str | tuple[Fraction, ...]] = Counter()
    winner, most = "", 0
    for response in responses:
        answer = marked_answer(without_thinking(response))
        if not answer:
            continue
        key = answer_key(answer)
        votes[key] += 1
        if votes[key] > most:
            winner, most = answer, votes[key]
    return winner
