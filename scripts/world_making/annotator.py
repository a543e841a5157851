"""A noisy annotator after Bradley and Terry: it prefers a over b with probability σ((r_a − r_b)/temperature).

Each response gets a rating r/temperature plus standard Gumbel noise; the difference of two such ratings is logistic,
so sorting by rating gives Bradley–Terry preferences for pairs and Plackett–Luce rankings for more (Luce, 1959;
Yellott, 1977).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

DISAGREEMENT = 0.17  # share of the shipped labels that contradict the true reward, as between human annotators


@dataclass(frozen=True)
class Rated:
    """A response with the annotator's rating (usually from 1 to 10) and its true reward, which the rows omit."""

    text: str
    rating: float
    reward: float


class Annotator:
    """Ranks responses by noisy ratings of their true reward."""

    def __init__(self, seed: int, temperature: float) -> None:
        if temperature <= 0:
            raise ValueError(f"temperature must be > 0, got {temperature}")
        self._rng = random.Random(f"annotator-{seed}")
        self._temperature = temperature

    def rank(self, responses: Sequence[str], rewards: Sequence[float]) -> list[Rated]:
        """Return the responses from best to worst as the annotator sees them; no two ratings are equal."""
        noisy = [
            (reward - self._temperature * math.log(-math.log(self._rng.random())), text, reward)
            for text, reward in zip(responses, rewards, strict=True)
        ]
        noisy.sort(reverse=True)
        ranked: list[Rated] = []
        for value, text, reward in noisy:
            rating = round(1 + 9 * value, 2)
            if ranked and rating >= ranked[-1].rating:
                rating = round(ranked[-1].rating - 0.01, 2)
            ranked.append(Rated(text, rating, reward))
        return ranked


def temperature_for(gaps: Sequence[float], disagreement: float = DISAGREEMENT) -> float:
    """Return the temperature at which the expected share of pairs labelled against the true reward is `disagreement`.

    Args:
        gaps: Differences of the true reward within pairs; ties are skipped.
        disagreement: Target mean of σ(−|gap|/temperature), in (0, .5).
    """
    sizes = [abs(gap) for gap in gaps if gap]
    if not sizes:
        raise ValueError("all pairs have equal true rewards: no temperature gives a disagreement")
    low, high = 1e-4, 10.0
    for _ in range(60):
        middle = math.sqrt(low * high)
        expected = sum(1 / (1 + math.exp(min(700.0, size / middle))) for size in sizes) / len(sizes)
        low, high = (middle, high) if expected < disagreement else (low, middle)
    return math.sqrt(low * high)
