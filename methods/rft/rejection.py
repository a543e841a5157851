"""Selection of the samples that RFT trains on (Yuan et al. 2023, arXiv 2308.01825, section 3.3).

With verifiable answers (`select_paths`): samples with a wrong final answer or a wrong ``<<a=b>>`` equation are dropped;
of those with the same ordered list of equations one is kept. Samples are taken in order. When one repeats the equations
of a kept path y, it replaces y, in its place, if it is farther from the other paths Y kept so far::

    Σ_{y′ ∈ Y∖{y}} Levenshtein(sample, y′)  >  Σ_{y′ ∈ Y∖{y}} Levenshtein(y, y′)

Without them (`select_best`): the best by score, as in RAFT (Dong et al. 2023, arXiv 2304.06767), or all from a
threshold on.

Departures from the authors' code, each undone by ``strict_reference=True``: the forms of numbers that equations may
have (``solution_equations.py``); and the final answer, which is the last that ``reward.verifiers.final_answer`` finds
marked (``####``, ``\\boxed{}``, "The answer is", "A:"), compared as there, while theirs is what follows the first
``####``, as a float. In both, a sample of more than `LONGEST_SAMPLE` characters is dropped, because edit distances take
quadratic time.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rapidfuzz.distance import Levenshtein

from align.errors import UserError
from methods.rft.solution_equations import equations, is_correct, path_key
from reward.tags import without_thinking
from reward.verifiers.final_answer import marked_answer
from reward.verifiers.math_answers import compare

__all__ = ["LONGEST_SAMPLE", "Fate", "Selection", "select_best", "select_paths"]

LONGEST_SAMPLE = 20_000  # characters

Fate = Literal[
    "kept", "too_long", "no_answer", "wrong_answer", "wrong_equation", "duplicate", "empty", "low_score", "not_best"
]
_REFERENCE_ANSWER = re.compile(r"#### (-?[0-9.,]+)")


@dataclass(frozen=True)
class Selection:
    """The samples of one question: which are kept, and why the others are not."""

    kept: tuple[int, ...]
    """Indices of the samples to train on."""
    fates: tuple[Fate, ...]
    """One per sample; of samples that repeat each other, all but the kept one are duplicates."""

    @property
    def counts(self) -> dict[Fate, int]:
        """Samples by fate; the sum is the number of samples."""
        return dict(Counter(self.fates))


def select_paths(samples: Sequence[str], gold: str, *, strict_reference: bool = False) -> Selection:
    """Select the distinct right reasoning paths among the samples of one question.

    Args:
        samples: Responses of one model or of several, in the order in which they were drawn.
        gold: The right answer, or a solution that ends in it (``#### 7``).
        strict_reference: Filter exactly as the authors' code does.

    Returns:
        Kept samples in the order in which their equations first occurred.

    Raises:
        UserError: ``gold`` is empty, or is no number where ``strict_reference`` needs one.
    """
    right = _reference_number(gold if "####" in gold else f"#### {gold}") if strict_reference else None
    if not gold.strip() or (strict_reference and right is None):
        raise UserError(f"rejection sampling: the answer {gold[:40]!r} is no number; correct the column `answer`.")
    fates: list[Fate] = []
    kept: dict[str, int] = {}
    for index, sample in enumerate(samples):
        fate = _fault(sample, gold, right, strict_reference)
        if fate is None:
            key = path_key(sample, strict_reference=strict_reference)
            if key not in kept:
                kept[key], fate = index, "kept"
            elif _farther(sample, kept[key], [samples[i] for k, i in kept.items() if k != key], samples):
                fates[kept[key]] = "duplicate"
                kept[key], fate = index, "kept"
            else:
                fate = "duplicate"
        fates.append(fate)
    return Selection(tuple(kept.values()), tuple(fates))


def select_best(
    texts: Sequence[str], scores: Sequence[float], *, n: int | None = None, threshold: float | None = None
) -> Selection:
    """Select responses to one prompt by score: at most ``n``, and none below ``threshold``; one of the two is needed.

    Texts that differ only in white space at their ends are one response with the highest of their scores. Of equal
    scores the earlier comes first.

    Returns:
        Kept responses, best first.

    Raises:
        UserError: A score is not finite, there is not one score per text, or neither ``n`` nor ``threshold`` is given.
    """
    if n is None and threshold is None:
        raise UserError("select_best: give n, a threshold or both.")
    if n is not None and n < 1:
        raise UserError(f"select_best: n={n} keeps nothing; give at least 1.")
    if threshold is not None and math.isnan(threshold):
        raise UserError("select_best: threshold=nan keeps nothing; give a number.")
    if len(texts) != len(scores):
        raise UserError(f"select_best: {len(scores)} scores for {len(texts)} texts; give one each.")
    for index, score in enumerate(scores):
        if not math.isfinite(score):
            raise UserError(f"select_best: the score of response {index} is {score}; correct the scorer.")
    fates: list[Fate] = ["not_best"] * len(texts)
    kept: dict[str, int] = {}
    for index in sorted(range(len(texts)), key=lambda i: -scores[i]):
        text = texts[index].strip()
        if not text:
            fates[index] = "empty"
        elif text in kept:
            fates[index] = "duplicate"
        elif threshold is not None and scores[index] < threshold:
            fates[index] = "low_score"
        elif n is None or len(kept) < n:
            kept[text], fates[index] = index, "kept"
    return Selection(tuple(kept.values()), tuple(fates))


def _fault(sample: str, gold: str, right: float | None, strict_reference: bool) -> Fate | None:
    """Return the reason to reject a sample, or None."""
    if len(sample) > LONGEST_SAMPLE:
        return "too_long"
    if strict_reference:
        given = _reference_number(sample)
        answered, agrees = given is not None, given == right
    else:
        answer = marked_answer(without_thinking(sample))
        answered, agrees = bool(answer), bool(answer) and compare(answer, marked_answer(gold) or gold).score == 1
    if not agrees:
        return "wrong_answer" if answered else "no_answer"
    if not all(is_correct(equation, strict_reference=strict_reference) for equation in equations(sample)):
        return "wrong_equation"
    return None


def _reference_number(text: str) -> float | None:
    """Read the final answer as the authors do; they cut generations at NUL."""
    match = _REFERENCE_ANSWER.search(text.partition("\0")[0])
    try:
        return float(match[1].replace(",", "")) if match else None
    except ValueError:  # "1.2.3"
        return None


def _farther(sample: str, rival: int, others: Sequence[str], samples: Sequence[str]) -> bool:
    def spread(text: str) -> int:
        return sum(Levenshtein.distance(text, other) for other in others)

    return spread(sample) > spread(samples[rival])
