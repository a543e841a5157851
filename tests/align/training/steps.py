"""Single steps with SGD at rate 1, which move the weights by minus the gradient."""

from __future__ import annotations

from typing import Any

import torch

from align import Policy, Preferences
from align.data.examples import tokenize
from align.system.processes import Processes
from align.training.step import Stepper
from methods import SFT

Rows = list[dict[str, str]]


class Mixing(SFT):
    mixing = 2.5  # pyright: ignore[reportAssignmentType]


def stepper(
    policy: Policy, method: Any, processes: Any = None, *, tokens: int = 100_000, bound: float = 1e9
) -> Stepper:
    parameters = list(policy.parameters(method.trains).values())
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    processes = processes or Processes()
    return Stepper(policy, method, processes, optimizer, tokens_per_microbatch=tokens, max_grad_norm=bound)


def examples(policy: Policy, rows: Rows, unit: Any = "demonstration") -> Any:
    return tokenize(Preferences.from_rows(rows), policy.tokenizer, max_length=200, unit=unit)


def weights(policy: Policy) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in policy.roles.parameters("policy").values()])
