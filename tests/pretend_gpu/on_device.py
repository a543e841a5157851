"""On a pretend accelerator everything is as on the processor, and it is seldom waited for.

These tests are run by `test_pretend_gpu.py`, in a process of their own: PyTorch keeps a registered device for good.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch

from align.evaluation.evaluator import Evaluator
from align.model.batch import Batch
from align.model.policy import Policy
from align.sampling.params import SamplingParams
from align.sampling.sampler import Sampler
from align.system.processes import Processes
from align.training.feed import tokenize_for
from align.training.step import Stepper
from tests.equivalence import ways
from tests.equivalence.cases import ALL, METHODS, Case, WordValues, data
from tests.equivalence.matrix import Difference, difference
from tests.equivalence.ways import MAX_LENGTH, Outcome, Way, make_policy, run
from tests.pretend_gpu import device

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*activation_checkpointing.*:FutureWarning",
    "ignore:.*_pattern keys did not match any targeted module:RuntimeWarning",
)
THERE = str(device.register())
torch.set_num_threads(1)

QUICK = ("sft", "dpo", "reward", "rrhf", "ppo")
CASES = [
    pytest.param(case, id=str(case), marks=() if str(case) in QUICK else pytest.mark.slow)
    for case in ALL
    if case.model != "mixture of experts"  # transformers computes it on accelerators by what PyTorch's CPU lacks
]
STEP = Way(tokens=40, steps=1)
STEPS = {
    case: replace(STEP, steps=2 if case.name == "online_dpo" else 1) for case in ALL
}  # its first one has only ties


class TestDevice:
    """It refuses what CUDA refuses, and counts what CUDA waits for."""

    @pytest.mark.parametrize(
        "operation",
        [
            lambda there, here: there + here,
            lambda there, here: torch.cat([there, here]),
            lambda there, here: torch.where(here > 0, there, 0),
            lambda there, here: there @ here.T,
            lambda there, here: here[there[0].long()],
            lambda there, here: there.index_put_((torch.zeros(2, dtype=torch.long, device=THERE),), here),
            lambda there, _: there.numpy(),
        ],
    )
    def test_two_devices_do_not_mix(self, operation: Any) -> None:
        here = torch.ones(2, 2)
        with pytest.raises(RuntimeError):
            operation(here.to(THERE), here)

    def test_what_is_waited_for(self) -> None:
        x = torch.arange(6.0, device=THERE).view(2, 3)
        with device.counted() as waits:
            assert (x + torch.tensor(1.0)).tolist() == [[1, 2, 3], [4, 5, 6]]
            assert float(x.sum()) == 15
            assert bool(x.any())
            assert x[x > 2].shape == (3,)
            torch.ones(2).to(THERE)
            torch.ones(2).to(THERE, non_blocking=True)
            x[torch.zeros(1, dtype=torch.long, device=THERE)] = 2 * x[:1].exp()
        assert Counter(line.partition(": ")[2] for line in waits.elements()) == {
            "copy to the processor": 1,
            "_local_scalar_dense": 2,
            "boolean index": 1,
            "blocking copy to the device": 1,
        }


# Steps


@dataclass
class _Seen:
    """How steps were computed, and what they waited for."""

    micro_batches: int = 0
    waits: Counter[str] = field(default_factory=Counter[str])


@cache
def _steps(case: Case, way: Way) -> tuple[Outcome, _Seen]:
    """Take steps on the device; returns their outcome, brought to the processor."""
    seen, step = _Seen(), Stepper.step

    def watched(self: Stepper, batch: Batch, mixed: Batch | None = None) -> Any:
        seen.micro_batches += len(self.policy.micro_batches(batch, self.tokens_per_microbatch)) if batch.P else 0
        with device.counted() as waits:
            result = step(self, batch, mixed)
        seen.waits += waits
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stepper, "step", watched)
        found = run(case, replace(way, device=THERE))
    return _brought(found), seen


def _brought(found: Outcome) -> Outcome:
    gradients = [{name: x.cpu() for name, x in gradient.items()} for gradient in found.gradients]
    return replace(found, gradients=gradients, weights={name: x.cpu() for name, x in found.weights.items()})


def _difference(case: Case, way: Way) -> Difference:
    found = _steps(case, way)[0]
    assert any(found.norms)
    return difference(found, run(case, way))


@pytest.mark.parametrize("case", CASES)
def test_a_step_is_that_of_the_processor(case: Case) -> None:
    assert _difference(case, STEPS[case]).largest < 1e-5


@pytest.mark.parametrize("case", CASES)
def test_a_step_waits_at_most_twice_for_each_micro_batch(case: Case) -> None:
    _, seen = _steps(case, STEPS[case])
    assert seen.micro_batches >= 2
    assert seen.waits.total() <= 2 * seen.micro_batches, _lines(seen.waits)


WAYS = [
    *((name, way) for name in ("dpo", "ppo", "reward") for way in (Way(full=True), Way(checkpointing=True))),
    ("dpo", Way(layout="flat")),
    ("dpo", Way(cached=True, moved=False)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "way"), WAYS)
def test_so_is_a_step_in_other_ways(name: str, way: Way) -> None:
    assert _difference(Case(name), replace(way, max_grad_norm=1e9)).largest < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sft", "dpo", "ppo", "reward"])
def test_so_is_one_in_bfloat16(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to rounding, which is 2^-9 in each number, on the same responses."""
    monkeypatch.setattr(ways, "Processes", partial(Processes, "bfloat16"))
    way = replace(STEP, base="bfloat16")
    expected = run(Case(name), way)
    found = run(Case(name), replace(way, device=THERE), drawn=expected)
    assert difference(_brought(found), expected).largest < 0.05


def _lines(waits: Counter[str]) -> str:
    return "\n".join(f"{count} times at {line}" for line, count in waits.most_common())


# Drawing and measuring

SAMPLING = {
    "greedy": SamplingParams(temperature=0, max_new_tokens=12),
    "top-k, top-p": SamplingParams(top_k=8, top_p=0.9, max_new_tokens=12),
    "diverse beams": SamplingParams(temperature=0, diversity_penalty=1.0, max_new_tokens=12),
    "shortest and stop": SamplingParams(min_new_tokens=4, stop_strings=("cat",), max_new_tokens=12),
}
QUICK_DRAWING = [("llama", "greedy"), ("sliding window", "top-k, top-p"), ("llama", "diverse beams")]
PROMPTS = [[7, 8, 9, 10, 11, 12, 13], [4], [5, 6, 7]]


def _policies(model: str = "llama") -> tuple[Policy, Policy]:
    """The same policy on the device and on the processor."""
    case = Case("ppo reward role", model)
    return make_policy(case, Way(device=THERE)), make_policy(case, Way())


@pytest.mark.parametrize(
    ("model", "name"),
    [
        pytest.param(model, name, marks=() if (model, name) in QUICK_DRAWING else pytest.mark.slow)
        for model in ("llama", "sliding window", "learned positions")
        for name in SAMPLING
    ],
)
def test_drawing_waits_once_for_each_token(model: str, name: str) -> None:
    (there, here), params = _policies(model), SAMPLING[name]
    with device.counted() as few:
        Sampler(there, replace(params, max_new_tokens=4)).generate(PROMPTS, n=3)
    with device.counted() as waits:
        drawn = Sampler(there, params).generate(PROMPTS, n=3)
    expected = Sampler(here, params).generate(PROMPTS, n=3)
    assert [[response.ids for response in row] for row in drawn] == [[r.ids for r in row] for row in expected]
    steps = max(len(response.ids) for row in drawn for response in row)
    assert steps > 4
    # Beside those of its tokens a batch has some, while prompts are read and adapters are merged.
    assert waits.total() - few.total() <= steps - 4, _lines(waits - few)


def test_an_evaluation_is_that_of_the_processor() -> None:
    found: list[dict[str, float]] = []
    for policy in _policies():
        evaluator = Evaluator.from_preferences(
            policy, data(), data(), max_length=MAX_LENGTH, sampling=SAMPLING["top-k, top-p"], scorers=[WordValues()]
        )
        measurement = evaluator.measure(policy)
        found.append({**measurement.metrics(), "": sum(measurement.preferred)})
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_the_report_of_a_reward_model_is_that_of_the_processor() -> None:
    method, found = METHODS["reward"], list[dict[str, float]]()
    for policy in _policies():
        rows = tokenize_for(method, data(), policy.tokenizer, MAX_LENGTH)
        metrics = method.report(policy, rows, rows, None)["metrics"]
        found.append({name: x["after"] for name, x in metrics.items() if x["after"] is not None})
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_a_model_is_loaded_there(tiny_model: Path) -> None:
    """And probed: with the layout that it has on the processor, and the same log-probabilities."""
    there, here = (Policy.load(str(tiny_model), device=place) for place in (THERE, "cpu"))
    assert there.device.type == "pretend"
    assert there.layout == here.layout == "tree"
    batch = Batch(prompt_ids=((7, 8, 9), (10,)), response_ids=(((11, 12), (13,)), ((14, 15, 16), (17,))), rows=(0, 1))
    found, expected = (policy.logprobs(batch).logp_PKT.cpu() for policy in (there, here))
    assert torch.allclose(found, expected, atol=1e-5)
