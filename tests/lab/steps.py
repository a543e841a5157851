"""The toolkit's own steps on enumerated batches: gradients, and descents to the optimum of a whole population."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from align.method.base import Method
from align.model.batch import Batch
from align.model.policy import Policy
from align.model.roles import Role
from align.system.processes import Processes
from align.training.step import Stepper
from tests.lab.enumeration import Array, Enumeration
from tests.lab.tabular import parameter

Tuples = Sequence[tuple[int, tuple[int, ...]]]
"""A prompt and the responses to it, by their numbers."""


def batch_of(world: Enumeration, tuples: Tuples, **columns: Any) -> Batch:
    """Each tuple is one prompt of the batch; columns as they are given, weights 1 unless given."""
    batch = Batch(
        prompt_ids=tuple(world.prompts[x] for x, _ in tuples),
        response_ids=tuple(tuple(world.responses[y] for y in ys) for _, ys in tuples),
        rows=tuple(range(len(tuples))),
    )
    columns = {"weight_P": np.ones(len(tuples)), **columns}
    return batch.with_columns(**{name: torch.as_tensor(np.asarray(value)) for name, value in columns.items()})


def pairs(world: Enumeration, preference: Callable[[int, int, int], float]) -> Batch:
    """Every ordered pair of different responses to each prompt, weighted by the share in which it is so ordered."""
    every = range(len(world.responses))
    tuples = [(x, (i, j)) for x in range(len(world.prompts)) for i, j in product(every, every) if i != j]
    weights = [preference(x, *ys) for x, ys in tuples]
    return batch_of(
        world,
        tuples,
        weight_P=weights,
        better_PKK=[[[False, True], [False, False]]] * len(tuples),
        margin_P=[float("nan")] * len(tuples),
    )


def gradient(
    policy: Policy, method: Method, batch: Batch, mixed: Batch | None = None, *, role: Role | None = None
) -> Array:
    """The gradient of a step's loss in the table of a role (the first trained one): a step of SGD at rate 1, undone."""
    trained = parameter(policy, role or method.trains[0])
    before = {name: p.detach().clone() for name, p in policy.parameters(method.trains).items()}
    sgd = torch.optim.SGD(policy.parameters(method.trains).values(), lr=1.0)
    stepper = Stepper(policy, method, Processes(), sgd, tokens_per_microbatch=4096, max_grad_norm=float("inf"))
    start = trained.detach().clone()
    stepper.step(batch, mixed)
    found = (start - trained.detach()).numpy()[:-1]
    with torch.no_grad():
        for name, p in policy.parameters(method.trains).items():
            p.copy_(before[name])
    return found


def minimise(
    policy: Policy, method: Method, batch: Batch, role: Role | None = None, *, tolerance: float = 1e-9
) -> float:
    """Descend to the minimum of a method's loss on a whole population by L-BFGS; returns the loss there.

    ``tolerance`` bounds the largest number of the gradient.
    """
    role = role or method.trains[0]
    with torch.no_grad():
        batch = method.prepare(policy, batch)
    optimizer = torch.optim.LBFGS(
        [parameter(policy, role)],
        max_iter=2000,
        history_size=50,
        tolerance_grad=tolerance,
        tolerance_change=1e-7 * tolerance,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        with policy.use(role):
            loss = method.loss(policy, batch).sums[role] / method.weight(batch)
        loss.backward()
        return loss

    optimizer.step(closure)
    return closure().item()


def rolled_out(
    policy: Policy, method: Any, world: Enumeration, tuples: Tuples, score_XY: Array, weights: Sequence[float]
) -> Batch:
    """A roll-out that drew these tuples, its roles asked and its advantages computed.

    The loss is linear in advantages and β, which are multiplied by ``weights``: with the probabilities of the tuples
    its sum is its expectation over all of them.
    """
    width = max(len(ys) for _, ys in tuples)
    score_PK, ended_PK = np.zeros((len(tuples), width)), np.zeros((len(tuples), width), dtype=bool)
    for p, (x, ys) in enumerate(tuples):
        score_PK[p, : len(ys)] = score_XY[x, list(ys)]
        ended_PK[p, : len(ys)] = world.ended_Y[list(ys)]
    drawn = batch_of(world, tuples, score_PK=score_PK, ended_PK=ended_PK)
    asked = policy.in_micro_batches(drawn, lambda part: method.ask_roles(policy, part))
    batch = method.compute_advantages(asked, {}, lambda total: total).batch
    weight_P = torch.tensor(weights)
    return batch.with_columns(
        advantage_PKT=batch["advantage_PKT"] * weight_P[:, None, None], beta_P=batch["beta_P"] * weight_P
    )


def every_tuple(world: Enumeration, probability_XY: Array, K: int) -> tuple[list[Any], list[float]]:
    """All K-tuples of responses to each prompt, and the probability that K independent draws give them."""
    every = range(len(world.responses))
    tuples = [(x, ys) for x in range(len(world.prompts)) for ys in product(every, repeat=K)]
    return tuples, [float(np.prod(probability_XY[x, list(ys)])) for x, ys in tuples]


def singles(world: Enumeration) -> list[Any]:
    """Every response to every prompt, alone."""
    return [(x, (y,)) for x in range(len(world.prompts)) for y in range(len(world.responses))]
