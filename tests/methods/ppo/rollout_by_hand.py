"""A roll-out of two prompts with two responses each, and the policy some steps later."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from align.model.batch import Batch
from align.model.forward import Logprobs

OLD = [[[-1.0, -0.5, -2.0], [-1.5, -0.25]], [[-0.75], [-1.25, -1.0]]]  # two prompts, two responses each
REFERENCE = [[[-1.2, -0.4, -1.5], [-1.0, -0.5]], [[-0.5], [-1.25, -2.0]]]
MOVED = [[[-0.7, -0.6, -1.9], [-1.0, -0.5]], [[-0.5], [-1.5, -0.9]]]
ENTROPY = [[[0.5, 0.25, 1.0], [2.0, 0.125]], [[0.75], [1.5, 0.375]]]
ADVANTAGE = [[[1.0, 2.0, -1.0], [0.5, -0.5]], [[-2.0], [1.5, 1.0]]]
SCORES, ENDED = [[1.0, 3.0], [-2.0, 0.5]], [[True, False], [True, True]]
FLAT_OLD, FLAT_MOVED, FLAT_ENTROPY, FLAT_ADVANTAGE, FLAT_REFERENCE = (
    [x for row in table for response in row for x in response] for table in (OLD, MOVED, ENTROPY, ADVANTAGE, REFERENCE)
)


def padded(table: list[list[list[float]]], fill: float = 0.0) -> Tensor:
    out = torch.full((2, 2, 3), fill)
    for p, row in enumerate(table):
        for k, values in enumerate(row):
            out[p, k, : len(values)] = torch.tensor(values)
    return out


def rollout(**changed: Tensor) -> Batch:
    """A roll-out after its roles were asked; where no token is, there are 9s that must not count."""
    batch = Batch(((1, 2), (1,)), tuple(tuple([3] * len(r) for r in row) for row in OLD), (0, 1))
    columns = {
        "old_logp_PKT": padded(OLD, 9.0),
        "reference_logp_PKT": padded(REFERENCE, -9.0),
        "entropy_PKT": padded(ENTROPY, 9.0),
        "old_value_PKT": padded(ADVANTAGE, 9.0),
        "score_PK": torch.tensor(SCORES),
        "ended_PK": torch.tensor(ENDED),
    }
    return batch.with_columns(**{**columns, **changed})


def experienced(method: Any, state: Any = None, **changed: Tensor) -> Any:
    return method.compute_advantages(rollout(**changed), state or {}, lambda x: x)


def means(metrics: Any) -> dict[str, float]:
    return {name: float(total) / float(weight) for name, (total, weight) in metrics.items()}


class Moved:
    """The policy some steps later."""

    device, role = "cpu", "policy"

    def __init__(self) -> None:
        self.logp_PKT = padded(MOVED, 9.0).requires_grad_()
        self.asked: list[tuple[float, bool]] = []

    def logprobs(self, _: Batch, *, temperature: float = 1.0, entropy: bool = False) -> Logprobs:
        self.asked.append((temperature, entropy))
        return Logprobs(self.logp_PKT, padded(ENTROPY) if entropy else None)
