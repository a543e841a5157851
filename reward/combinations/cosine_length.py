"""Cosine length reward (Yeo et al. 2025, "Demystifying Long Chain-of-Thought Reasoning", appendix C.1).

::

    R = long + ½·(short − long)·(1 + cos(π·min(n / L_max, 1)))        n units of the response, L_max = ``maximum``

with (short, long) = (1, ½) for a right answer, which is the better the shorter it is, and (−1, −½) for a wrong one,
which is the better the longer it is: a model that does not know the answer is to go on thinking. The values are those
of open-r1 and TRL (``get_cosine_scaled_reward``).

The paper and TRL count tokens, open-r1 characters (``unit``). Departures: another scorer says what is right. The
paper's penalty of responses that reach L_max is ``soft_overlong`` in a ``weighted_sum``. Beyond L_max the reward stays,
as in TRL; in open-r1 it climbs again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from align.errors import ScorerError, UserError
from align.scoring.checked_scores import ScoreTable, check_scorers, require_all, score_part
from reward.verifiers.measured import Measured

if TYPE_CHECKING:
    from align.scoring.scorer import Scorer


@dataclass(frozen=True, kw_only=True)
class CosineLength(Measured):
    """A reward of right and wrong answers by their length; it applies where the scorer of right answers does."""

    base: Scorer
    """The verifier: a response is right where its score is 1, else wrong."""
    right_short: float = 1.0
    """Reward of a right answer of length 0."""
    right_long: float = 0.5
    """Reward of a right answer of the longest length."""
    wrong_short: float = -1.0
    """Reward of a wrong answer of length 0."""
    wrong_long: float = -0.5
    """Reward of a wrong answer of the longest length."""
    name: str = "cosine_length"

    def check(self) -> None:
        """Every right answer is better than every wrong one."""
        super().check()
        check_scorers(base=self.base)
        ends = (self.right_short, self.right_long, self.wrong_short, self.wrong_long)
        if not all(map(math.isfinite, ends)) or min(ends[:2]) <= max(ends[2:]):
            raise UserError(
                f"cosine_length: right_short={ends[0]:g} and right_long={ends[1]:g} must both be above "
                f"wrong_short={ends[2]:g} and wrong_long={ends[3]:g}, or a wrong answer pays."
            )

    def score(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **columns: Sequence[Any]
    ) -> list[list[float]]:
        """Return P × K rewards.

        Raises:
            ScorerError: The verifier does not apply to a response, or gives a score outside [0, 1].
        """
        return require_all(self.score_where_it_applies(prompts, responses, **columns), self.name)

    def score_where_it_applies(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **columns: Sequence[Any]
    ) -> ScoreTable:
        """Return P × K rewards, ``None`` where the verifier does not apply."""
        table = score_part("base", self.base, prompts, responses, **columns)
        return [
            [None if value is None else self.reward(value, text) for value, text in zip(values, texts, strict=True)]
            for values, texts in zip(table, responses, strict=True)
        ]

    def reward(self, correct: float, response: str) -> float:
        """Return the reward of a response with this score of the verifier."""
        if not 0 <= correct <= 1:
            raise ScorerError(
                f"cosine_length: base must be a verifier with scores from 0 to 1; {self.base.name!r} gave {correct:g}."
            )
        short, long = (self.right_short, self.right_long) if correct == 1 else (self.wrong_short, self.wrong_long)
        return long + (short - long) * (1 + math.cos(math.pi * min(self.measure(response) / self.maximum, 1))) / 2
