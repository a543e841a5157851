"""Transformers' continuous batching beside the built-in loop."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from align.errors import EngineError, UserError
from align.model.policy import Policy
from align.sampling.engine.continuous import ContinuousEngine
from align.sampling.engine.engines import LocalEngine, open_engine
from align.sampling.params import SamplingParams
from align.settings.sampling import SamplingConfig
from tests.align.sampling.engine.test_vllm import PROMPTS, logps_of

GREEDY = SamplingParams(temperature=0, max_new_tokens=12)
WARM = SamplingParams(temperature=0.7, max_new_tokens=40)


@pytest.fixture
def engine(tiny_policy: Policy) -> ContinuousEngine:
    with open_engine(SamplingConfig(engine="transformers"), tiny_policy) as opened:
        assert isinstance(opened, ContinuousEngine)
        return opened


def test_it_draws_from_the_policy(engine: ContinuousEngine, tiny_policy: Policy) -> None:
    ours, theirs = (drawer.generate(PROMPTS, GREEDY, n=2) for drawer in (LocalEngine(tiny_policy), engine))
    assert [[one.ids for one in row] for row in theirs] == [[one.ids for one in row] for row in ours]
    assert [[one.finished for one in row] for row in theirs] == [[one.finished for one in row] for row in ours]
    drawn = engine.generate(PROMPTS, WARM, n=3, seed=5)
    assert [len(row) for row in drawn] == [3, 3, 3]
    for prompt, row in zip(PROMPTS, drawn, strict=True):
        for one in row:
            assert one.logps == pytest.approx(logps_of(tiny_policy, prompt, one.ids, 0.7), abs=1e-4)
            assert one.finished == (one.ids[-1] == 2)
    assert {one.finished for row in drawn for one in row} == {True, False}


def test_responses_differ_from_their_first_token_on(engine: ContinuousEngine, tiny_policy: Policy) -> None:
    """Those that transformers forks from one request share it."""
    (row,) = engine.generate([[7, 8, 9]], SamplingParams(temperature=1.0, max_new_tokens=1), n=400)
    with torch.no_grad(), tiny_policy.use("policy"):
        probabilities = tiny_policy.model(torch.tensor([[7, 8, 9]])).logits[0, -1].softmax(-1)
    for token in probabilities.topk(3).indices.tolist():
        expected = float(probabilities[token])
        found = sum(one.ids == [token] for one in row) / len(row)
        assert abs(found - expected) < 4 * math.sqrt(expected * (1 - expected) / len(row))


def test_a_seed_decides_and_the_callers_random_numbers_stay(engine: ContinuousEngine) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    drawn = engine.generate(PROMPTS, WARM, n=2, seed=5, keys=[4, 5, 6])
    assert torch.equal(torch.rand(3), expected)
    assert engine.generate(PROMPTS, WARM, n=2, seed=5, keys=[4, 5, 6]) == drawn
    assert engine.generate(PROMPTS, WARM, n=2, seed=6, keys=[4, 5, 6]) != drawn
    assert engine.generate(PROMPTS, WARM, n=2, seed=5, keys=[4, 5, 7]) != drawn


def test_the_policy_is_as_it_was(engine: ContinuousEngine, tiny_policy: Policy) -> None:
    before = tiny_policy.model.config._attn_implementation
    weights = {name: part.clone() for name, part in tiny_policy.model.state_dict().items()}
    engine.generate(PROMPTS, GREEDY)
    assert tiny_policy.model.config._attn_implementation == before == "packed"
    assert all(torch.equal(part, weights[name]) for name, part in tiny_policy.model.state_dict().items())


def test_a_process_without_a_share_draws_nothing(engine: ContinuousEngine) -> None:
    assert engine.generate([], GREEDY, n=2) == []


def test_more_than_the_cache_holds(
    engine: ContinuousEngine, tiny_policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("align.sampling.engine.continuous._CACHE", 512)  # two responses at a time
    prompts = [[7 + i, 8] for i in range(9)]
    ours, theirs = (drawer.generate(prompts, GREEDY, n=1) for drawer in (LocalEngine(tiny_policy), engine))
    assert [row[0].ids for row in theirs] == [row[0].ids for row in ours]


def test_it_stops_where_its_caller_does(engine: ContinuousEngine, tiny_policy: Policy) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.generate(PROMPTS, WARM, between=stop)
    assert tiny_policy.model.config._attn_implementation == "packed"


def test_a_failure_is_named(engine: ContinuousEngine, tiny_policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(tiny_policy.model, "forward", broken)
    with pytest.raises(EngineError, match=r"continuous batching failed \(no such kernel\); take sampling.engine=local"):
        engine.generate(PROMPTS, GREEDY)


def test_a_model_without_keys_and_values(tiny_policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("align.sampling.engine.continuous.make_cache", lambda _: None)
    with pytest.raises(UserError, match=r"has another cache than keys and values; take sampling.engine=local"):
        ContinuousEngine(tiny_policy)


def test_an_old_transformers(tiny_policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.__version__", "5.17.0")
    with pytest.raises(UserError, match=r"needs transformers 5\.18 or later, not 5\.17\.0; install"):
        ContinuousEngine(tiny_policy)
