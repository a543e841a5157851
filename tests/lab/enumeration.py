"""The oracle: every response of a tiny world, and what follows from their probabilities by summing over all of them.

It uses NumPy alone and none of the toolkit. A policy is a table of logits, one row for each prefix (a prompt and the
first tokens of a response), so that every conditional distribution is free. Arrays are named by their shape: X prompts,
Y responses, S rows of the table, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

Array = NDArray[np.float64]
Ids = tuple[int, ...]

LETTERS = (0, 1)
END = 2
V = 3


@dataclass(frozen=True)
class Enumeration:
    """Prompts of 1, 2 and 3 tokens, none the beginning of another; words of two letters, ended or cut off."""

    longest: int = 3
    """Tokens of the longest response."""
    prompts: tuple[Ids, ...] = ((0,), (1, 0), (1, 1, 0))

    @cached_property
    def responses(self) -> list[Ids]:
        """Words below the longest length with an end, then words of the longest length without one."""
        ended = [(*word, END) for n in range(self.longest) for word in product(LETTERS, repeat=n)]
        return [*ended, *product(LETTERS, repeat=self.longest)]

    @cached_property
    def ended_Y(self) -> NDArray[np.bool_]:
        return np.array([ids[-1] == END for ids in self.responses])

    @cached_property
    def length_Y(self) -> NDArray[np.int64]:
        return np.array([len(ids) for ids in self.responses])

    @cached_property
    def rows(self) -> dict[Ids, int]:
        """The row of each prefix, those of whole responses too (a reward is read there)."""
        unfinished = [word for n in range(self.longest) for word in product(LETTERS, repeat=n)]
        return {
            (*prompt, *prefix): i
            for i, (prompt, prefix) in enumerate(product(self.prompts, [*unfinished, *self.responses]))
        }

    def random_table(self, seed: int, scale: float = 1.0) -> Array:
        """Logits from a normal distribution."""
        return scale * np.random.default_rng(seed).normal(size=(len(self.rows), V))

    def random_scores(self, seed: int, scale: float = 1.0) -> Array:
        """A score of each response to each prompt; (X, Y)."""
        return scale * np.random.default_rng(seed).normal(size=(len(self.prompts), len(self.responses)))

    def shaped(self, score_XY: Array) -> Array:
        """Scores where those of cut-off responses are replaced by −1, the default of the on-line methods."""
        return np.where(self.ended_Y, score_XY, -1.0)

    def table_of(self, logp_XY: Array) -> Array:
        """A table with these probabilities: the logit of a token is the log of all that begins with it; (S, V)."""
        out = np.full((len(self.rows), V), -np.inf)
        for x, y in product(range(len(self.prompts)), range(len(self.responses))):
            for s, token in self.steps(x, y):
                out[s, token] = np.logaddexp(out[s, token], logp_XY[x, y])
        return np.where(np.isfinite(out), out, 0.0)

    def steps(self, x: int, y: int) -> Iterator[tuple[int, int]]:
        """Row and token of each step of a response."""
        for t, token in enumerate(self.responses[y]):
            yield self.rows[(*self.prompts[x], *self.responses[y][:t])], token

    def token_logps(self, table_SV: Array, temperature: float = 1.0) -> list[list[list[float]]]:
        """``log π(y_t | x, y_<t)``: prompt, response, token."""
        logp_SV = log_softmax(table_SV / temperature, axis=-1)
        return [
            [[float(logp_SV[s, token]) for s, token in self.steps(x, y)] for y in range(len(self.responses))]
            for x in range(len(self.prompts))
        ]

    def logps(self, table_SV: Array, temperature: float = 1.0) -> Array:
        """``log π(y | x)``; (X, Y)."""
        return np.array([[sum(steps) for steps in row] for row in self.token_logps(table_SV, temperature)])

    def probabilities(self, table_SV: Array, temperature: float = 1.0) -> Array:
        """``π(y | x)``; (X, Y), each row sums to 1."""
        return np.exp(self.logps(table_SV, temperature))

    def token_scores(self, table_SV: Array, temperature: float = 1.0) -> Iterator[tuple[int, int, int, int, Array]]:
        """Prompt, response, step, row, and ``∇ log π(y_t | ·) = (1[y_t] − π) / T`` in the logits of that row."""
        p_SV = np.exp(log_softmax(table_SV / temperature, axis=-1))
        for x, y in product(range(len(self.prompts)), range(len(self.responses))):
            for t, (s, token) in enumerate(self.steps(x, y)):
                yield x, y, t, s, (np.eye(V)[token] - p_SV[s]) / temperature

    def score_function(self, table_SV: Array, temperature: float = 1.0) -> Array:
        """``∇ log π(y | x)``; (X, Y, S, V)."""
        out = np.zeros((len(self.prompts), len(self.responses), *table_SV.shape))
        for x, y, _, s, gradient_V in self.token_scores(table_SV, temperature):
            out[x, y, s] += gradient_V
        return out

    def policy_gradient(self, table_SV: Array, reward_XY: Array, temperature: float = 1.0) -> Array:
        """``Σ_x ∇ E_π[r] = Σ_x Σ_y π(y)·r(y)·∇ log π(y)``, the reward held fixed; (S, V)."""
        weight_XY = self.probabilities(table_SV, temperature) * reward_XY
        return np.einsum("xy,xysv->sv", weight_XY, self.score_function(table_SV, temperature))

    def values(self, probability_XY: Array, reward_to_go: list[list[list[float]]]) -> Array:
        """``V(prefix)``: the mean of what is still to come after each unfinished prefix; (S,), 0 elsewhere."""
        weight_S, sum_S = np.zeros(len(self.rows)), np.zeros(len(self.rows))
        for x, y in product(range(len(self.prompts)), range(len(self.responses))):
            for (s, _), to_go in zip(self.steps(x, y), reward_to_go[x][y], strict=True):
                weight_S[s] += probability_XY[x, y]
                sum_S[s] += probability_XY[x, y] * to_go
        return np.divide(sum_S, weight_S, out=np.zeros_like(sum_S), where=weight_S > 0)


def kl(logp_XY: Array, logq_XY: Array) -> Array:
    """``KL(p ‖ q)`` of each prompt in nats; (X,)."""
    return (np.exp(logp_XY) * (logp_XY - logq_XY)).sum(-1)


def normalised(logit_XY: Array) -> Array:
    """Log-probabilities proportional to ``exp(logit)``."""
    return log_softmax(logit_XY, axis=-1)


def cosine(a: Array, b: Array) -> float:
    return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))
