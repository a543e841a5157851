"""The weight of a row: 2 is the row twice, 0 is no row, in the loss, its gradient and every metric."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from align import Policy, Preferences
from align.data.examples import tokenize
from align.method.base import Method
from align.model.batch import Batch
from methods import BCO, CPO, DPO, GRPO, KTO, ORPO, RRHF, SFT, SimPO, SLiC
from reward.training.modelling import RewardModel
from reward.training.ranker import Ranker

MIXTURE: Any = {"loss_type": ("sigmoid", "sft"), "loss_weights": (1.0, 0.5)}
ANY_WEIGHT = [
    *(DPO(), DPO(**MIXTURE), KTO(baseline=False), BCO(beta=0.5), SimPO(), ORPO(), CPO()),
    *(SFT(), SFT(reduction="sequence_mean"), RRHF(), SLiC(), RewardModel(), Ranker()),
]
NOTHING_OR_ONE = [KTO(beta=0.5), DPO(loss_type="aot"), DPO(loss_type="aot_unpaired")]  # prompts meet, numbers sorted


def step(method: Method, policy: Policy, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
    """The gradient of a step of one part, and its metrics."""
    (role,) = method.trains
    with torch.no_grad():
        (part,) = method.prepare_step(policy, [method.prepare(policy, batch)], lambda make: [make()])
    with policy.use(role):
        made = method.loss(policy, part)
    parameters = list(policy.parameters(method.trains).values())
    gradient = torch.autograd.grad(made.sums[role] / method.weight(part), parameters, allow_unused=True)
    metrics = {name: float(total) / float(weight) for name, (total, weight) in made.metrics.items()}
    return torch.cat([part.flatten() for part in gradient if part is not None]), metrics


@pytest.mark.parametrize(
    ("method", "weights"),
    [
        *((method, [2.0, 1.0, 0.0, 1.0, 3.0]) for method in ANY_WEIGHT),
        *((method, [1.0, 1.0, 0.0, 1.0, 0.0]) for method in NOTHING_OR_ONE),
    ],
    ids=lambda given: type(given).__name__,
)
def test_a_weight_is_a_number_of_rows(
    method: Any, weights: list[float], tiny_policy: Policy, pair_rows: list[dict[str, str]]
) -> None:
    tiny_policy.require(method.roles)
    with torch.no_grad():
        for name, parameter in tiny_policy.parameters(method.trains).items():
            if "score" in name:  # a new reward head is 0
                parameter.normal_(generator=torch.Generator().manual_seed(0))
    rows = method.learns_from(Preferences.from_rows(pair_rows[:5]))
    given = tokenize(rows, tiny_policy.tokenizer, max_length=250, unit=method.unit)
    whole = Batch.from_examples(given[: len(weights)])
    often = [p for p, weight in enumerate(weights) for _ in range(int(weight))]
    gradient, metrics = step(method, tiny_policy, whole.with_columns(weight_P=torch.tensor(weights)))
    expected, theirs = step(method, tiny_policy, whole.select(often))
    assert gradient.norm() > 1e-6
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-4)
    assert metrics == pytest.approx(theirs, rel=1e-4, abs=1e-6)


def test_a_method_that_answers_every_prompt_as_often_says_so(tiny_policy: Policy) -> None:
    rows = [
        {"prompt": f"{i}?", "chosen": "a", "rejected": "b", "weight": weight} for i, weight in enumerate((1.0, 1.0))
    ]
    heavy = [*rows, {"prompt": "2?", "chosen": "a", "rejected": "b", "weight": 2.0}]

    def doubts(rows: list[dict[str, Any]]) -> str:
        data = tokenize(Preferences.from_rows(rows), tiny_policy.tokenizer, max_length=250, unit="prompt")
        return " ".join(GRPO().doubts(data.distinct_prompts(), 9))

    assert doubts(rows) == ""
    assert doubts(heavy).startswith("the weights of the data's rows do not count: GRPO answers every prompt as often")
