from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from typing_extensions import override

from align import Policy, Preferences
from align.data.examples import tokenize
from align.errors import UserError
from align.evaluation.evaluator import Evaluator
from align.evaluation.measurement import Measurement, Sample, compare
from align.model.batch import Batch
from align.model.divergence import sequence_kl
from align.model.forward import Forward
from align.sampling.params import SamplingParams
from align.sampling.sampler import Sampler
from align.system.processes import Processes


class Rank(Processes):
    """One of three ranks, which keeps its share to itself."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.number = rank

    @override
    def share(self, items: Sequence[Any]) -> Sequence[Any]:
        return items[self.number :: 3]

    @override
    def in_order(self, numbers: Iterable[int], values: Iterable[Any]) -> list[Any]:
        assert {number % 3 for number in numbers} == {self.number}
        return list(values)


class Length:
    name = "length"

    def score(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **columns: Sequence[Any]
    ) -> list[list[float]]:
        assert len(prompts) == len(responses) == len(columns["answer"])
        return [[float(len(text)) for text in row] for row in responses]


def samples(*scores: float) -> Measurement:
    return Measurement([Sample("p", "a b", 3, 0.5, {"length": score}) for score in scores])


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
        assert metrics["kl"] == 0
        assert metrics["preference_accuracy"] == 0.5
        assert len(measured.samples) == 10
        report = compare(measured, evaluator.measure(policy))
        assert report["win_rate"]["by"] == "length"
        assert (report["win_rate"]["mean"], report["win_rate"]["n"]) == (0.5, 10)
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

    @pytest.mark.parametrize(("limit", "expected"), [(4, [0, 10, 20, 30]), (3, [0, 13, 26]), (99, list(range(40)))])
    def test_the_prompts_are_spread_over_the_data(
        self, limit: int, expected: list[int], tiny_policy: Policy, pair_rows: list[dict[str, str]]
    ) -> None:
        pairs = Preferences.from_rows(pair_rows)
        evaluator = Evaluator.from_preferences(tiny_policy, pairs, None, max_length=200, limit=limit)
        assert evaluator.prompts is not None
        assert [example.index for example in evaluator.prompts] == expected
        assert list(evaluator.texts) == [pair_rows[i]["prompt"] for i in expected]

    def test_a_prompt_of_several_rows_is_answered_once(
        self, tiny_policy: Policy, pair_rows: list[dict[str, str]]
    ) -> None:
        rows = [{**pair_rows[i % 4], "rejected": f"no {i}", "answer": str(i)} for i in range(12)]
        evaluator = self.evaluator(tiny_policy, rows, scorers=[Length()])
        assert list(evaluator.columns["answer"]) == ["0", "1", "2", "3"]
        measured = evaluator.measure(tiny_policy)
        assert [sample.prompt for sample in measured.samples] == [row["prompt"] for row in pair_rows[:4]]
        assert len(measured.preferred) == 12
        assert [list(measured.pair_prompts).index(name) for name in measured.pair_prompts] == [0, 1, 2, 3] * 3
        few_shot = Preferences.from_rows([{**row, "prompt": f"{i}: {row['prompt']}"} for i, row in enumerate(rows)])
        asked = Evaluator.from_preferences(
            tiny_policy, Preferences.from_rows(rows), None, max_length=200, asked=few_shot, scorers=[Length()]
        )
        assert asked.prompts is not None
        assert [tiny_policy.decode(example.prompt_ids)[:1] for example in asked.prompts] == ["0", "1", "2", "3"]

    def test_what_it_measures_is_its_identity(self, tiny_policy: Policy, pair_rows: list[dict[str, str]]) -> None:
        """Also how many of the prompts: other ones give other means."""
        pairs, less = (Preferences.from_rows(rows) for rows in (pair_rows, pair_rows[:39]))

        def identity(limit: int, *, compared: Preferences = pairs, **settings: Any) -> dict[str, Any]:
            sampling = SamplingParams(max_new_tokens=8)
            settings = {"max_length": 200, "limit": limit, "scorers": [Length()], "sampling": sampling, **settings}
            return Evaluator.from_preferences(tiny_policy, pairs, compared, **settings).identity()

        before = identity(4)
        assert identity(4) == before
        changes: dict[str, dict[str, Any]] = {
            "prompts": identity(5),
            "pairs": identity(4, compared=less),
            "scorers": identity(4, scorers=[]),
            "sampling": identity(4, sampling=SamplingParams(max_new_tokens=9)),
            "seed": identity(4, seed=1),
        }
        for name, changed in changes.items():
            assert {key for key in before if before[key] != changed[key]} == {name}

    def test_all_pairs_are_measured(self, tiny_policy: Policy, pair_rows: list[dict[str, str]]) -> None:
        measured = self.evaluator(tiny_policy, pair_rows).measure(tiny_policy)
        assert (len(measured.samples), len(measured.preferred)) == (10, 40)
        report = compare(measured, measured)
        assert report["n"] == {"prompts": 10, "pairs": 40}
        assert report["intervals"]["preference_accuracy"]["after"]["n"] == 40
        assert "win_rate" not in report  # without a scorer


class TestKL:
    """Against the sum over every response of two tokens."""

    def enumerated(self, policy: Policy, ids: list[int], temperature: float) -> float:
        """``Σ_y π(y)·log π(y)/π_ref(y)`` at this temperature over responses of one end-of-turn token or two tokens."""
        stops = Sampler(policy, SamplingParams()).stops
        logps: list[tuple[torch.Tensor, torch.Tensor]] = []
        for role in ("policy", "reference"):
            with policy.use(role), torch.no_grad():
                first = policy.model(torch.tensor([ids])).logits[0, -1].double()
                prefixes = torch.tensor([[*ids, token] for token in range(len(first))])
                second = policy.model(prefixes).logits[:, -1].double()
            logps.append(((first / temperature).log_softmax(-1), (second / temperature).log_softmax(-1)))
        total = 0.0
        (first, second), (first_ref, second_ref) = logps
        for token in range(len(first)):
            ratio = (first[token] - first_ref[token]).item()
            chance = first[token].exp().item()
            if token in stops:
                total += chance * ratio
            else:
                both = first[token] + second[token]
                total += (both.exp() * (both - first_ref[token] - second_ref[token])).sum().item()
        return total

    @pytest.mark.parametrize("settings", [{"temperature": 1.0}, {"temperature": 0.7}, {"temperature": 0.4}], ids=str)
    @pytest.mark.parametrize("cut", [{}, {"top_p": 0.8}, {"top_k": 1}, {"min_new_tokens": 2}], ids=str)
    def test_it_is_the_enumerated_one(
        self, settings: dict[str, float], cut: dict[str, Any], tiny_policy: Policy
    ) -> None:
        """Also where the responses are drawn from a part of the distribution."""
        for name, parameter in tiny_policy.roles.parameters("policy").items():
            if "lora_B" in name:
                parameter.data.mul_(4)
        tiny_policy.model.lm_head.weight.data.mul_(5)  # pyright: ignore[reportAttributeAccessIssue]
        row = {"prompt": "Is it?", "chosen": "Yes.", "rejected": "No."}
        sampling = SamplingParams(max_new_tokens=2, **settings, **cut)
        prompts = tokenize(Preferences.from_rows([row] * 200), tiny_policy.tokenizer, max_length=64, unit="prompt")
        measured = Evaluator(prompts=prompts, texts=["Is it?"] * 200, sampling=sampling).measure(tiny_policy)
        found = measured.estimates()["kl"]
        exact = self.enumerated(tiny_policy, list(prompts[0].prompt_ids), settings["temperature"])
        assert exact > 0.5
        assert found.low is not None
        assert found.high is not None
        error = (found.high - found.low) / 2 / 1.97
        assert found.mean == pytest.approx(exact, abs=3 * error + 1e-4)
        assert all(sample.kl is not None and sample.kl >= 0 for sample in measured.samples)

    @pytest.mark.parametrize(
        ("cut", "drawn"),
        [
            ({}, None),  # the responses that are evaluated will do
            ({"temperature": 0.7}, None),
            ({"top_p": 0.5}, {}),
            ({"top_k": 3}, {}),
            ({"min_new_tokens": 2}, {}),
            ({"temperature": 0.7, "top_p": 0.5, "top_k": 3, "min_new_tokens": 2}, {"temperature": 0.7}),
            ({"temperature": 0.0}, {"temperature": 1.0}),
            ({"temperature": 0.0, "diversity_penalty": 1.0}, {"temperature": 1.0}),
        ],
    )
    def test_it_is_measured_on_responses_with_all_tokens_allowed(
        self, cut: dict[str, Any], drawn: dict[str, Any] | None, tiny_policy: Policy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        row = {"prompt": "Is it?", "chosen": "Yes.", "rejected": "No."}
        sampling = SamplingParams(max_new_tokens=3, stop_strings=("x",), **cut)
        evaluator = Evaluator.from_preferences(
            tiny_policy, Preferences.from_rows([row]), None, max_length=64, sampling=sampling
        )
        asked: list[SamplingParams] = []

        def draw(_: Evaluator, __: Policy, sampling: SamplingParams, mine: Sequence[int], ___: Any) -> Any:
            asked.append(sampling)
            return [[5, 2]] * len(mine)

        monkeypatch.setattr(Evaluator, "_draw", draw)
        evaluator.measure(tiny_policy)
        again = [] if drawn is None else [SamplingParams(max_new_tokens=3, stop_strings=("x",), **drawn)]
        assert asked == [sampling, *again]

    def test_of_one_token_it_is_exact(self, tiny_policy: Policy) -> None:
        """Whatever was drawn: the sum over the vocabulary; greedy responses are measured at temperature 1."""
        rows = [{"prompt": f"Is it {i}?", "chosen": "Yes.", "rejected": "No."} for i in range(3)]
        for temperature in (0.7, 0.0):
            evaluator = Evaluator.from_preferences(
                tiny_policy,
                Preferences.from_rows(rows),
                None,
                max_length=64,
                sampling=SamplingParams(max_new_tokens=1, temperature=temperature),
            )
            assert evaluator.prompts is not None
            for example, sample in zip(evaluator.prompts, evaluator.measure(tiny_policy).samples, strict=True):
                logp: list[torch.Tensor] = []
                for role in ("policy", "reference"):
                    with tiny_policy.use(role), torch.no_grad():
                        logits = tiny_policy.model(torch.tensor([example.prompt_ids])).logits[0, -1]
                    logp.append((logits / (temperature or 1)).log_softmax(-1))
                assert sample.kl == pytest.approx((logp[0].exp() * (logp[0] - logp[1])).sum().item(), abs=1e-5)

    def test_tiles_and_full_logits_change_nothing(self, tiny_policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
        batch = Batch(
            prompt_ids=((1, 9, 8), (1, 7)), response_ids=(((5, 6, 7), (8,)), ((9, 10, 2), (3, 2))), rows=(0, 1)
        )
        whole = sequence_kl(tiny_policy, batch, temperature=0.7)
        assert whole.min() > 0
        monkeypatch.setattr("align.model.divergence._TILE", 600)  # two tokens
        assert torch.allclose(sequence_kl(tiny_policy, batch, temperature=0.7), whole, atol=1e-6)
        tiny_policy.fused_head = False
        assert torch.allclose(sequence_kl(tiny_policy, batch, temperature=0.7), whole, atol=1e-6)

    def test_vocabulary_rows_that_are_never_drawn(self, tiny_policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
        """Logits of −inf in both roles: 0·log 0 = 0."""
        batch = Batch(prompt_ids=((1, 9, 8),), response_ids=(((5, 6, 7),),), rows=(0,))
        plain = Forward.logits

        def logits(self: Forward, rows: Any) -> torch.Tensor:
            return plain(self, rows).index_fill(1, torch.tensor([0, 250]), -torch.inf)

        monkeypatch.setattr(Forward, "logits", logits)
        tiny_policy.fused_head = False
        found = sequence_kl(tiny_policy, batch, temperature=1.0)
        assert torch.isfinite(found).all()
        assert found.item() > 0


class TestRanks:
    def test_shares_of_ranks_join_in_order(self, tiny_policy: Policy, pair_rows: list[dict[str, str]]) -> None:
        """Each prompt's response is the one that a single process draws, and stands at its place."""
        pairs = Preferences.from_rows(pair_rows)
        evaluator = Evaluator.from_preferences(
            tiny_policy, pairs, pairs, max_length=200, limit=7, sampling=SamplingParams(max_new_tokens=6, temperature=1)
        )
        alone = evaluator.measure(tiny_policy)
        assert len({sample.response for sample in alone.samples}) == 7
        assert len(set(alone.preferred)) > 1
        shares = [evaluator.measure(tiny_policy, Rank(rank)) for rank in range(3)]
        for items in ("samples", "preferred"):
            joined = [getattr(shares[i % 3], items)[i // 3] for i in range(len(getattr(alone, items)))]
            if items == "preferred":
                assert joined == alone.preferred
            else:
                assert [(s.prompt, s.response) for s in joined] == [(s.prompt, s.response) for s in alone.samples]

    def test_what_ranks_gather_is_put_in_order(self) -> None:
        """See :meth:`align.system.processes.Processes.in_order`."""
        processes = Processes()
        assert processes.in_order([2, 0, 1], ["c", "a", "b"]) == ["a", "b", "c"]


def test_held_out_answers_without_a_pair_have_no_accuracy(tiny_policy: Policy) -> None:
    """A good answer to one prompt and a bad one to another; to the same prompt they are a pair."""
    good = {"prompt": "p", "chosen": "a", "rejected": None}
    bad = {"prompt": "q", "chosen": None, "rejected": "b"}
    apart, together = Preferences.from_rows([good, bad]), Preferences.from_rows([good, {**bad, "prompt": "p"}])
    found = Evaluator.from_preferences(tiny_policy, None, apart, max_length=100)
    assert found.pairs is None
    assert found.notes == ["no preference accuracy: none of 2 held-out rows is a pair that fits"]
    found = Evaluator.from_preferences(tiny_policy, None, together, max_length=100)
    assert found.pairs is not None
    assert len(found.pairs) == 1


def test_compare_pairs_prompts() -> None:
    report = compare(samples(1, 2, 3, 4), samples(2, 3, 4, 4))
    assert report["win_rate"]["mean"] == pytest.approx(3.5 / 4)
    assert report["metrics"]["length"] == {"before": 2.5, "after": 3.25}
    assert report["metrics"]["kl"] == {"before": 0.5, "after": 0.5}
