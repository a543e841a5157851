"""Each sample and each pair of an evaluation by itself, and the share of one rank."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from typing_extensions import override

from align import Policy, Preferences
from align.evaluation.evaluator import Evaluator
from align.sampling.params import SamplingParams
from align.sampling.sampler import Sampler
from align.system.processes import Processes


class Length:
    name = "length"

    def score(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **columns: Sequence[Any]
    ) -> list[list[float]]:
        assert len(prompts) == len(responses) == len(columns["answer"])
        return [[float(len(text)) for text in row] for row in responses]


class Second(Processes):
    """The second of two ranks; it notes what it gives to all, and gets back a mark instead."""

    def __init__(self) -> None:
        super().__init__()
        self.rank, self.given = 1, list[Any]()

    @override
    def share(self, items: Sequence[Any]) -> Sequence[Any]:
        return items[1::2]

    @override
    def together(self, make: Any) -> list[Any]:
        return [{"length": [[-1.0]] * 99}, make()]

    @override
    def in_order(self, numbers: Iterable[int], values: Iterable[Any]) -> list[Any]:
        self.given.append((list(numbers), list(values)))
        return ["all"]


class TestEachSample:
    @pytest.fixture
    def evaluator(self, tiny_policy: Policy, pair_rows: list[dict[str, str]]) -> Evaluator:
        rows = [{**row, "source": f"s{i}"} for i, row in enumerate(pair_rows[:6])]
        return Evaluator.from_preferences(
            tiny_policy,
            Preferences.from_rows(rows),
            Preferences.from_rows(rows),
            max_length=200,
            scorers=[Length()],
            sampling=SamplingParams(max_new_tokens=5),
            seed=3,
        )

    def test_a_sample_is_what_the_sampler_draws_for_its_prompt(self, evaluator: Evaluator, tiny_policy: Policy) -> None:
        assert evaluator.prompts is not None
        with tiny_policy.use("policy"):
            drawn = Sampler(tiny_policy, evaluator.sampling).generate(
                [example.prompt_ids for example in evaluator.prompts], seed=3, keys=range(6)
            )
        texts = [tiny_policy.decode(response.ids) for (response,) in drawn]
        found = evaluator.measure(tiny_policy).samples
        assert [(sample.prompt, sample.response, sample.tokens, sample.scores, sample.source) for sample in found] == [
            (evaluator.texts[i], text, len(drawn[i][0].ids), {"length": float(len(text))}, f"s{i}")
            for i, text in enumerate(texts)
        ]

    def test_the_best_of_n_is_chosen_from_n_responses_of_the_seed(
        self, evaluator: Evaluator, tiny_policy: Policy
    ) -> None:
        assert evaluator.prompts is not None
        tables = []
        for seed in (3, 4):
            with tiny_policy.use("policy"):
                drawn = Sampler(tiny_policy, evaluator.sampling).generate(
                    [example.prompt_ids for example in evaluator.prompts], n=3, seed=seed
                )
            tables.append([[float(len(tiny_policy.decode(one.ids))) for one in row] for row in drawn])
        assert evaluator.score_samples(tiny_policy, 3) == {"length": tables[0]}
        assert tables[0] != tables[1]

    def test_a_pair_is_ordered_by_the_ratios_of_its_responses(self, evaluator: Evaluator, tiny_policy: Policy) -> None:
        """1 where the chosen response gained more by training, each read alone, end of turn included."""
        assert evaluator.pairs is not None
        expected: list[float] = []
        for example in evaluator.pairs:
            ratios: list[float] = []
            for response in example.responses:
                logps: list[float] = []
                for role in ("policy", "reference"):
                    ids = [*example.prompt_ids, *response]
                    with tiny_policy.use(role), torch.no_grad():
                        logp = tiny_policy.model(torch.tensor([ids])).logits[0].log_softmax(-1)
                    first = len(example.prompt_ids)
                    logps.append(sum(logp[t - 1, ids[t]].item() for t in range(first, len(ids))))
                ratios.append(logps[0] - logps[1])
            expected.append(float(ratios[0] > ratios[1]))
        assert set(expected) == {0.0, 1.0}
        assert evaluator.measure(tiny_policy).preferred == expected

    def test_each_rank_gives_its_share_with_its_own_scores_to_all(
        self, evaluator: Evaluator, tiny_policy: Policy
    ) -> None:
        alone, second = evaluator.measure(tiny_policy), Second()
        measured = evaluator.measure(tiny_policy, second)
        assert (measured.samples, measured.preferred) == (["all"], ["all"])
        (numbers, samples), (numbers_of_pairs, preferred) = second.given
        assert numbers == numbers_of_pairs == [1, 3, 5]
        assert [(s.prompt, s.response, s.scores) for s in samples] == [
            (s.prompt, s.response, s.scores) for s in alone.samples[1::2]
        ]
        assert preferred == alone.preferred[1::2]

    def test_drawing_divergences_and_pairs_can_each_be_stopped(
        self, evaluator: Evaluator, tiny_policy: Policy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class StopError(Exception):
            pass

        def stop() -> None:
            raise StopError

        parts = ["_draw", "_divergences", "_measure_pairs"]
        stubs: dict[str, Any] = {
            "_draw": lambda _self, _engine, _sampling, mine, _between: [[5, 2]] * len(mine),
            "_divergences": lambda _self, _policy, _engine, mine, _responses, _between: [None] * len(mine),
            "_measure_pairs": lambda *_: [],
        }
        for part in parts:
            with monkeypatch.context() as patch:
                for other in parts:
                    if other != part:
                        patch.setattr(Evaluator, other, stubs[other])
                with pytest.raises(StopError):
                    evaluator.measure(tiny_policy, between=stop)

    def test_the_same_number_of_other_prompts_or_pairs_is_another_evaluation(self, evaluator: Evaluator) -> None:
        """Also where the texts are the same and the tokens are others."""
        assert evaluator.prompts is not None
        assert evaluator.pairs is not None
        before = evaluator.identity()
        for name in ("prompts", "pairs"):
            tokens = replace(getattr(evaluator, name), fingerprint="other")
            changed = replace(evaluator, **{name: tokens}).identity()
            assert {key for key in before if before[key] != changed[key]} == {name}
            missing = replace(evaluator, **{name: None}).identity()
            assert {key for key in before if before[key] != missing[key]} == {name}

    def test_pairs_that_do_not_fit_are_cut_and_never_stop_an_evaluation(self, tiny_policy: Policy) -> None:
        rows = [
            {"prompt": "p", "chosen": "c " * 40, "rejected": "r"},
            {"prompt": "q" * 90, "chosen": "c", "rejected": "r"},
        ]
        made = Evaluator.from_preferences(
            tiny_policy, Preferences.from_rows(rows), Preferences.from_rows(rows), max_length=50
        )
        assert made.prompts is not None
        assert made.pairs is not None
        assert (list(made.texts), len(made.pairs)) == (["p"], 1)
        assert made.notes[0].startswith("1 of 2 held-out prompts are not evaluated: with an answer of 128 tokens")
