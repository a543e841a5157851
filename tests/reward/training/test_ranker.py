"""The method `ranker`: its questions in both orders, its loss, and how it is assessed."""

from __future__ import annotations

import math
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from align import Policy, Preferences
from align.data.encoding import encode_prompt, encode_response
from align.data.examples import tokenize, tokenizer_fingerprint
from align.data.schema import DRAWN_COLUMNS
from align.errors import UserError
from align.model.batch import Batch
from methods import SFT
from reward.training.ranker import Ranker, answer_logprobs, assess, both_orders, question
from tests.reward.training.ranker_pairs import rows


class TestComparisons:
    def test_the_question(self) -> None:
        expected = (
            "Which response to the request is better, A or B?\n\nRequest: Why {b}?\n\nResponse A: {a}.\n\n"
            "Response B: No\nreason\n\nBetter response:"
        )
        assert question("Why {b}?", " {a}.\n", "No\nreason ") == expected

    def test_both_orders_of_a_pair(self) -> None:
        row = {"prompt": "p", "chosen": "good", "rejected": "bad", "chosen_score": 3, "weight": 0.5, "margin": 1}
        data = Preferences.from_rows([row, {**row, "prompt": "q", "rejected": None}], name="file", max_rejected=0)
        made = list(Ranker().learns_from(data))
        assert [row["prompt"][0]["content"] for row in made[:2]] == [
            question("p", "good", "bad"),
            question("p", "bad", "good"),
        ]
        answers = [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in made[:2]]
        assert answers == [("A", "B"), ("B", "A")]
        for row in made[:2]:
            assert (row["weight"], row["margin"], row["chosen_score"], row["place"]) == (0.5, None, None, "file:1")
        assert [row["rejected"] for row in made[2:]] == [None, None]
        assert made[2]["place"] == "file:2"

    def test_a_conversation_is_shown_with_its_roles(self) -> None:
        turns = [{"role": role, "content": text} for role, text in [("user", "a"), ("assistant", "b"), ("user", "c")]]
        (made, _) = Ranker().learns_from(Preferences.from_rows([{"prompt": turns, "chosen": "x", "rejected": "y"}]))
        assert made["prompt"] == [
            {"role": None, "content": question("user: a\nassistant: b\nuser: c", "x", "y")},
        ]

    def test_the_fingerprint_is_that_of_the_questions(self) -> None:
        data, other = Preferences.from_rows(rows(2)), Preferences.from_rows(rows(3))
        found = [Ranker().learns_from(d).fingerprint for d in (data, data, other)]
        assert found[0] == found[1]
        assert len({*found, data.fingerprint, other.fingerprint}) == 4

    def test_what_a_response_was_drawn_as_is_not_what_an_answer_was(self, tiny_policy: Policy) -> None:
        """The answers are encoded from their text, without a note that drawn ids did not fit it."""
        tokenizer = tiny_policy.tokenizer
        row = {**rows(1)[0], "drawn_with": tokenizer_fingerprint(tokenizer)}
        row |= {f"{side}_drawn": encode_response(tokenizer, row[side]) for side in ("chosen", "rejected")}
        data = Preferences.from_rows([row])
        assert data[0]["chosen_drawn"] == row["chosen_drawn"]
        tokens = tokenize(Ranker().learns_from(data), tokenizer, max_length=250)
        a, b = (encode_response(tokenizer, answer) for answer in "AB")
        assert [list(example.responses) for example in tokens] == [[a, b], [b, a]]
        assert not tokens.report.noted

    def test_rows_that_are_no_pairs_are_counted_with_their_place(self, tiny_policy: Policy) -> None:
        lone = {**rows(1)[0], "prompt": "q", "rejected": None}
        data = Ranker().learns_from(Preferences.from_rows([*rows(3), lone], name="file", max_rejected=0.3))
        tokens = tokenize(data, tiny_policy.tokenizer, max_length=250)
        assert (len(tokens), tokens.report.read) == (6, 8)
        assert tokens.report.rejected == {"rejected is null": 2}
        with pytest.raises(UserError, match=r"2 rejected is null \(file:4"):
            tokenize(data, tiny_policy.tokenizer, max_length=250, max_rejected=0.24)


class TestTraining:
    def test_the_loss_is_that_of_fine_tuning_on_the_answers(self, tiny_policy: Policy) -> None:
        data = Ranker().learns_from(
            Preferences.from_rows([{**row, "weight": 0.5 + i} for i, row in enumerate(rows(4))])
        )
        loss, weight, gradient = [], [], []
        for method in (Ranker(), SFT(reduction="sequence_sum")):
            tokens = tokenize(data, tiny_policy.tokenizer, max_length=250, unit=method.unit)
            batch = Batch.from_examples(tokens)
            found = method.loss(tiny_policy, batch).sums["policy"]
            loss.append(found.item())
            weight.append(method.weight(batch))
            parameters = list(tiny_policy.roles.parameters("policy").values())
            gradient.append(torch.cat([g.flatten() for g in torch.autograd.grad(found, parameters)]))
        assert loss[0] == pytest.approx(loss[1], rel=1e-5)
        assert weight == [2 * (0.5 + 1.5 + 2.5 + 3.5)] * 2
        assert torch.allclose(gradient[0], gradient[1], atol=1e-4 * float(gradient[1].abs().max()))

    def test_log_probabilities_of_the_answers(self, tiny_policy: Policy) -> None:
        """Of one question at a time, by the whole model."""
        tokenizer = tiny_policy.tokenizer
        questions = [encode_prompt(tokenizer, question("p", a, b)) for a, b in [("x", "yy"), ("zzzz", "x")]]
        found = answer_logprobs(tiny_policy, questions)
        for n, ids in enumerate(questions):
            for k, answer in enumerate("AB"):
                response = encode_response(tokenizer, answer)
                assert len(response) == 2
                with torch.no_grad(), tiny_policy.use("policy"):
                    logp_TV = tiny_policy.model(torch.tensor([[*ids, *response]])).logits[0].log_softmax(-1)
                expected = sum(logp_TV[len(ids) - 1 + t, token].item() for t, token in enumerate(response))
                assert found[n, k].item() == pytest.approx(expected, abs=1e-4)

    @pytest.mark.parametrize(
        ("logp", "expected"),
        [
            # p_A of the forward and backward question of two pairs: right by .9 - .2, wrong by .6 - .8.
            ([0.9, 0.2, 0.6, 0.8], (0.5, (0.4 - 0.3 + 0.1 + 0.3) / 4)),
            ([0.9, 0.9, 0.7, 0.1], (0.75, (0.4 + 0.4 + 0.2 - 0.4) / 4)),  # A, whatever it is asked: half right
        ],
    )
    def test_accuracy_and_position_bias(
        self, logp: list[float], expected: tuple[float, float], tiny_policy: Policy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        known = torch.tensor([[math.log(p / 2), math.log((1 - p) / 2)] for p in logp])
        monkeypatch.setattr("reward.training.ranker.answer_logprobs", lambda _, asked, **__: known[: len(asked)])
        data = tokenize(Ranker().learns_from(Preferences.from_rows(rows(2))), tiny_policy.tokenizer, max_length=250)
        found = assess(tiny_policy, data)
        assert (found["accuracy"].mean, found["position_bias"].mean) == pytest.approx(expected, abs=1e-6)
        assert found["accuracy"].n == 2

    def test_the_pairs_of_one_prompt_are_not_independent(
        self, tiny_policy: Policy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Three pairs of each of four prompts, all right for two of them: Wilson's interval of 2 of 4."""
        p_A = [0.9, 0.2] * 6 + [0.2, 0.9] * 6
        known = torch.tensor([[math.log(p / 2), math.log((1 - p) / 2)] for p in p_A])
        monkeypatch.setattr("reward.training.ranker.answer_logprobs", lambda *_, **__: known)
        pairs = [{"prompt": f"p{i // 3}", "chosen": f"yes {i}", "rejected": f"no {i}"} for i in range(12)]
        data = tokenize(Ranker().learns_from(Preferences.from_rows(pairs)), tiny_policy.tokenizer, max_length=250)
        found = assess(tiny_policy, data)["accuracy"]
        assert (found.mean, found.n) == (0.5, 12)
        assert (found.low, found.high) == pytest.approx((0.15004, 0.84996), abs=5e-5)

    def test_a_pair_of_which_one_order_is_lost_is_not_assessed(self, tiny_policy: Policy) -> None:
        data = tokenize(Ranker().learns_from(Preferences.from_rows(rows(1))), tiny_policy.tokenizer, max_length=250)
        assert len(data) == 2
        half = Ranker().learns_from(Preferences.from_rows(rows(1))).select([1])
        assert assess(tiny_policy, tokenize(half, tiny_policy.tokenizer, max_length=250)) == {}


class TestLossOfTheMethod:
    def test_loss_and_accuracy_by_hand(self) -> None:
        """Questions of weight 1, 2 and 4: right by 1 nat, wrong by 2, tied; answers of two tokens, one of one."""
        batch = Batch(
            prompt_ids=([1],) * 3,
            response_ids=(([2, 3], [4]), ([2, 3], [4, 3]), ([2, 3], [4, 3])),
            rows=(0, 1, 2),
            columns={"weight_P": torch.tensor([1.0, 2.0, 4.0])},
        )
        logp_PKT = torch.tensor(
            [[[-1.0, -1], [-3, -99]], [[-2, -2], [-1, -1]], [[-0.5, -0.25], [-0.25, -0.5]]], requires_grad=True
        )
        policy: Any = SimpleNamespace(
            logprobs=lambda asked: SimpleNamespace(logp_PKT=logp_PKT) if asked is batch else 0
        )
        loss = Ranker().loss(policy, batch)
        assert loss.sums.keys() == {"policy"}
        assert loss.sums["policy"].item() == 1 * 2 + 2 * 4 + 4 * 0.75
        assert {name: (float(value), float(weight)) for name, (value, weight) in loss.metrics.items()} == {
            "loss": (13.0, 7.0),
            "accuracy": (1 * 1 + 4 * 0.5, 7.0),
        }
        assert not any(value.requires_grad for value, _ in loss.metrics.values())
        loss.sums["policy"].backward()
        assert logp_PKT.grad is not None
        assert logp_PKT.grad.tolist() == [[[-1, -1], [0, 0]], [[-2, -2], [0, 0]], [[-4, -4], [0, 0]]]

    def test_defaults(self) -> None:
        assert asdict(Ranker.optimization) == {
            "learning_rate": 1e-4,
            "full_learning_rate": 1e-5,
            "epochs": 1,
            "batch_size": 32,
            "warmup": 0.05,
            "schedule": "cosine",
        }
        assert (Ranker.unit, Ranker.headline, Ranker.dropout) == ("pair", "accuracy", True)
        assert (Ranker().trains, Ranker().generates, Ranker().needs_reward) == (("policy",), False, False)

    def test_what_the_two_orders_are_without(self) -> None:
        """Data about the responses is not true of the answers A and B; the rest stays."""
        row = {
            "prompt": [{"role": "user", "content": "p"}],
            "chosen": [{"role": "assistant", "content": " good "}],
            "rejected": [{"role": "assistant", "content": "bad"}],
            **{"chosen_score": 3.0, "rejected_score": 1.0, "margin": 2.0, "answer": "42", "weight": 0.5, "source": "s"},
            **{"ranking": "r", "tools": "[]"},
            **dict.fromkeys(DRAWN_COLUMNS, "drawn"),
        }
        first, second = both_orders(row)
        lost = dict.fromkeys(("chosen_score", "rejected_score", "margin", "ranking", "tools", "answer", *DRAWN_COLUMNS))
        for made, asked, answers in (
            (first, question("p", "good", "bad"), "AB"),
            (second, question("p", "bad", "good"), "BA"),
        ):
            texts = {"prompt": asked, "chosen": answers[0], "rejected": answers[1]}
            messages = {name: [{"role": None, "content": text}] for name, text in texts.items()}
            assert made == {"weight": 0.5, "source": "s", **lost, **messages}
        for side in ("chosen", "rejected"):
            lone = {**row, side: None}
            assert list(both_orders(lone)) == [lone, lone]

    def test_the_report(self, tiny_policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
        known = torch.tensor([[math.log(p), math.log(1 - p)] for p in (0.9, 0.2, 0.6, 0.8)])
        monkeypatch.setattr("reward.training.ranker.answer_logprobs", lambda _, asked, **__: known[: len(asked)])
        data = tokenize(Ranker().learns_from(Preferences.from_rows(rows(2))), tiny_policy.tokenizer, max_length=250)
        report = Ranker().report(tiny_policy, data, data, None)
        assert report["metrics"] == {
            "accuracy": {"before": None, "after": 0.5},
            "position_bias": {"before": None, "after": pytest.approx(0.125)},
        }
        found = assess(tiny_policy, data)
        assert report["intervals"] == {name: {"after": asdict(estimate)} for name, estimate in found.items()}
        assert Ranker().report(tiny_policy, data, None, None) == {}

    def test_the_policy_answers_whatever_role_is_in_use(self, tiny_policy: Policy) -> None:
        asked = [encode_prompt(tiny_policy.tokenizer, question("p", "x", "yy"))]
        expected = answer_logprobs(tiny_policy, asked)
        with tiny_policy.use("reference"):
            assert torch.equal(answer_logprobs(tiny_policy, asked), expected)
            assert tiny_policy.role == "reference"
        assert not expected.requires_grad
        assert answer_logprobs(tiny_policy, []).shape == (0, 2)
