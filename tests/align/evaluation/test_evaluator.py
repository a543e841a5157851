from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from align import Policy, Preferences
from align.data.examples import tokenize
from align.errors import UserError
from align.evaluation.evaluator import Evaluator
from align.evaluation.measurement import Measurement, Sample, compare, distinct_n, ordered_right, win_rate
from align.sampling.params import SamplingParams
from align.sampling.sampler import Sampler


class Length:
    name = "length"

    def score(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **columns: Sequence[Any]
    ) -> list[list[float]]:
        assert len(prompts) == len(responses) == len(columns["answer"])
        return [[float(len(text)) for text in row] for row in responses]


def samples(*scores: float) -> Measurement:
    return Measurement([Sample("p", "a b", 3, 0.5, {"length": score}) for score in scores], 0.5)


class TestMeasure:
    def evaluator(self, policy: Policy, rows: list[dict[str, str]], **settings: Any) -> Evaluator:
        pairs = Preferences.from_rows(rows)
        return Evaluator.from_preferences(
            policy, pairs, pairs, max_length=200, limit=10, sampling=SamplingParams(max_new_tokens=8), **settings
        )

    def test_a_policy_that_is_its_reference(self, tiny_model: Path, pair_rows: list[dict[str, str]]) -> None:
        policy = Policy.load(str(tiny_model))
        evaluator = self.evaluator(policy, pair_rows, scorers=[Length()])
        measured = evaluator.measure(policy)
        metrics = measured.metrics()
        assert metrics["kl"] == pytest.approx(0, abs=1e-6)
        assert metrics["preference_accuracy"] == 0.5
        assert len(measured.samples) == 10
        report = compare(measured, evaluator.measure(policy))
        assert report["win_rate"] == {"by": "length", "mean": 0.5, "low": 0.5, "high": 0.5, "n": 10}
        assert report["metrics"]["length"]["before"] == report["metrics"]["length"]["after"]

    def test_prompts_that_leave_no_room_for_an_answer_are_counted(
        self, tiny_policy: Policy, pair_rows: list[dict[str, str]]
    ) -> None:
        pairs = Preferences.from_rows(pair_rows)
        lengths = [len(e.prompt_ids) for e in tokenize(pairs, tiny_policy.tokenizer, max_length=200, unit="prompt")]
        room = sorted(lengths)[len(lengths) // 2]  # about half of the prompts fit beside the answer
        sampling = SamplingParams(max_new_tokens=256 - room)
        evaluator = Evaluator.from_preferences(tiny_policy, pairs, None, max_length=256, sampling=sampling)
        assert evaluator.prompts is not None
        assert 0 < len(evaluator.prompts) < len(pairs)
        assert evaluator.notes[0].startswith(f"{len(pairs) - len(evaluator.prompts)} of {len(pairs)} held-out prompts")
        too_long = SamplingParams(max_new_tokens=254)
        with pytest.raises(UserError, match=r"evaluation\.max_new_tokens=254 leaves no room"):
            Evaluator.from_preferences(tiny_policy, pairs, None, max_length=256, sampling=too_long)

    def test_kl_is_the_log_ratio_of_the_samples(self, tiny_policy: Policy, pair_rows: list[dict[str, str]]) -> None:
        evaluator = self.evaluator(tiny_policy, pair_rows)
        measured = evaluator.measure(tiny_policy)
        assert evaluator.prompts is not None
        responses = Sampler(tiny_policy, evaluator.sampling).generate([e.prompt_ids for e in evaluator.prompts])
        for example, (response,), sample in zip(evaluator.prompts, responses, measured.samples, strict=True):
            ids = response.ids
            sums: list[float] = []
            for role in ("policy", "reference"):
                with tiny_policy.use(role), torch.no_grad():
                    logits = tiny_policy.model(torch.tensor([[*example.prompt_ids, *ids]])).logits[0].log_softmax(-1)
                start = len(example.prompt_ids) - 1
                sums.append(sum(logits[start + t, token].item() for t, token in enumerate(ids)))
            assert sample.kl == pytest.approx(sums[0] - sums[1], abs=1e-4)


def test_win_rate_counts_ties_half_and_gives_an_interval() -> None:
    result = win_rate(np.array([1.0] * 30 + [0.0] * 20 + [-1.0] * 50))
    assert result["mean"] == pytest.approx(0.4)
    # Normal approximation: standard deviation of {1, ½, 0} with these shares, over √100.
    deviation = (0.3 * 0.6**2 + 0.2 * 0.1**2 + 0.5 * 0.4**2) ** 0.5 / 10
    assert result["low"] == pytest.approx(0.4 - 1.96 * deviation, abs=0.01)
    assert result["high"] == pytest.approx(0.4 + 1.96 * deviation, abs=0.01)


def test_a_tie_is_half_right() -> None:
    assert ordered_right(np.array([0.3, 0.0, -2.0, -0.0])).tolist() == [1.0, 0.5, 0.0, 0.5]
    right = ordered_right(torch.tensor([0.3, 0.0, -2.0], dtype=torch.float64))
    assert right.tolist() == [1.0, 0.5, 0.0]
    assert right.mean() == 0.5


def test_compare_pairs_prompts() -> None:
    report = compare(samples(1, 2, 3, 4), samples(2, 3, 4, 4))
    assert report["win_rate"]["mean"] == pytest.approx(3.5 / 4)
    assert report["metrics"]["length"] == {"before": 2.5, "after": 3.25}
    assert report["metrics"]["kl"] == {"before": 0.5, "after": 0.5}


def test_distinct_two() -> None:
    assert distinct_n(["a b a b", "a b c"], 2) == pytest.approx(3 / 5)
    assert distinct_n(["one"], 2) == 0
