"""Measurements of a roll-out, over its responses and over all ranks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from align import Policy
from align.model.batch import Batch
from align.sampling.params import Response
from align.system.processes import Processes
from align.training import rollout as module
from tests.align.training.fake_rollouts import Ends, FakeSampler, K, make

pytestmark = pytest.mark.usefixtures("fake_sampler")


def test_what_is_measured_of_a_roll_out(tiny_policy: Policy) -> None:
    """Eight responses of three tokens, of which half have an end; the two to row 0 are the same."""
    source = make(tiny_policy, Ends())
    source.batch(1)
    rows = source.prompts(0)[0].rows
    found = source.metrics
    assert found["tokens/lengths"] == 3.0
    assert found["val/num_eos_tokens"] == 0.5
    assert found["identical"] == (2 / 8 if 0 in rows else 0)
    scores = [ord(str(k)) if row else ord("z") for row in rows for k in range(K)]
    assert found["scores/ends"] == sum(scores) / 8
    assert found["sampling/logp_difference"] == pytest.approx(sum(scores) / 8 / 1000, rel=1e-4)
    assert found["sampling/logp_difference_max"] == pytest.approx(max(scores) / 1000, rel=1e-4)
    assert found["own"] == 1.5
    assert 0 < found["seconds/sampling"] < found["seconds/rollout"] < 60


def test_the_row_that_repeats_itself_is_drawn_by_some_roll_out(tiny_policy: Policy) -> None:
    """So that the test above says something: row 0 comes up within the first two roll-outs of four of six."""
    source = make(tiny_policy, Ends())
    shares: list[float] = []
    for step in (1, 2):
        source.batch(step)
        shares.append(source.metrics["identical"])
    assert 0.25 in shares


def test_differences_of_either_sign_count() -> None:
    batch = Batch(((1,),), (([3, 4], [5]),), (0,)).with_columns(
        old_logp_PKT=torch.tensor([[[-1.0, -2.0], [-4.0, 9.0]]]),
        sampler_logp_PKT=torch.tensor([[[-1.5, -1.0], [-4.0, 0.0]]]),
    )
    found, largest = module._sampler_difference(batch)
    assert float(found["sampling/logp_difference"][0]) == 1.5
    assert found["sampling/logp_difference"][1] == 3
    assert largest == [1.0]
    assert module._sampler_difference(Batch((), (), ())) == ({}, [])


def test_what_is_no_mean_is_of_all_ranks(tiny_policy: Policy, at_ranks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rank's responses are alike, in words and score, and not those of the other's, but for one.

    Rows are even on one rank and odd on the other; scores are 1 and 2, the first response to each is the same anywhere.
    """
    monkeypatch.setattr(FakeSampler, "draw", lambda sampler, key, k: of_words(sampler, "a" if k == 0 else f"b{key}"))

    class Parity(Ends):
        def score(self, prompts: Any, responses: Any, **columns: Any) -> list[list[float]]:
            del columns
            return [[1.0 + int(prompt[-1]) % 2] * len(row) for prompt, row in zip(prompts, responses, strict=True)]

    def run(processes: Processes) -> Any:
        source = make(tiny_policy, Parity(), processes)
        rows = [row for row in source.prompts(0)[1] if row % 2 == processes.rank or processes.world_size == 1]
        source.prompts = lambda _: (source_all.prompts(0)[0].select([order.index(row) for row in rows]), order)
        source._asked = lambda batch: batch.with_columns(
            old_logp_PKT=batch["sampler_logp_PKT"] + batch["score_PK"][..., None] / 1000
        )
        source.batch(1)
        return source.metrics

    source_all = make(tiny_policy, Parity())
    order = list(source_all.prompts(0)[0].rows)
    alone = run(Processes())
    scores = [1.0 + row % 2 for row in order for _ in range(K)]
    assert alone["scores/ends/std"] == pytest.approx(float(torch.tensor(scores).std(correction=0)))
    assert alone["scores/ends/std"] > 0
    assert alone["sampling/logp_difference_max"] == pytest.approx(2 / 1000, rel=1e-3)
    assert alone["identical"] == 0.5
    for found in at_ranks(2, run):
        for name in ("scores/ends", "scores/ends/std", "sampling/logp_difference_max", "identical"):
            assert found[name] == pytest.approx(alone[name], rel=1e-6), name


def of_words(sampler: FakeSampler, text: str) -> Response:
    letters = [sampler.policy.tokenizer.convert_tokens_to_ids(c) for c in text]
    return Response([*letters, 2], [-1.0] * (len(letters) + 1), finished=True)


def test_metrics_belong_to_the_step_that_drew(tiny_policy: Policy) -> None:
    source = make(tiny_policy, Ends(), epochs=2)
    found = []
    for step in range(1, 5):
        source.batch(step)
        found.append(bool(source.metrics))
    assert found == [True, False, True, False]
