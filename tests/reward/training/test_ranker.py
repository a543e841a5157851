from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from align import Adapter, Policy, Preferences, Trainer, TrainerConfig
from align.cli.evaluate import main as evaluate
from align.cli.main import main
from align.data.encoding import encode_prompt, encode_response
from align.data.examples import tokenize, tokenizer_fingerprint
from align.data.schema import DRAWN_COLUMNS
from align.errors import UserError
from align.model.batch import Batch
from align.scoring.from_config import make_scorer
from align.scoring.identity import model_identity
from methods import SFT
from reward.models.tournament import Match, RankerScorer, tournament
from reward.training.ranker import Ranker, answer_logprobs, assess, both_orders, question

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
WORDS = ("red", "blue", "green", "black", "white", "grey", "pink", "brown")


def rows(count: int = 24) -> list[dict[str, Any]]:
    """Pairs whose preferred response begins with ``+``, the other one with ``-``."""
    return [
        {"prompt": f"Say {i}", "chosen": f"+{WORDS[i % 8]}", "rejected": f"-{WORDS[i % 5]}", "source": "s"}
        for i in range(count)
    ]


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


@pytest.fixture(scope="module")
def ranker(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny ranker that has learnt to say A or B."""
    config = TrainerConfig(steps=30, batch_size=8, max_length=250, learning_rate=1e-2, save_steps=None)
    trainer = Trainer(Policy.load(str(tiny_model), adapter=None), tmp_path_factory.mktemp("ranker") / "run", config)
    return str(trainer.fit(Ranker(), Preferences.from_rows(rows())).folder / "final")


class TestScorer:
    @pytest.mark.parametrize("adapter", [Adapter(r=4), None], ids=["lora", "full"])
    def test_a_reloaded_ranker_says_what_the_trained_one_did(
        self, adapter: Adapter | None, tiny_model: Path, tmp_path: Path
    ) -> None:
        policy = Policy.load(str(tiny_model), adapter=adapter)
        data = Preferences.from_rows(rows(8))
        config = TrainerConfig(steps=2, batch_size=8, max_length=250, learning_rate=1e-2, save_steps=None)
        result = Trainer(policy, tmp_path / "run", config).fit(Ranker(), data, data)
        asked = [encode_prompt(policy.tokenizer, question("p", *texts)) for texts in [("+red", "-b"), ("x", "+red")]]
        before = answer_logprobs(Policy.load(str(tiny_model), adapter=None), asked)
        trained = answer_logprobs(policy, asked)
        assert torch.equal(answer_logprobs(Policy.load_saved(result.folder / "final"), asked), trained)
        assert (trained - before).abs().max() > 0.1
        assert result.evaluation is not None
        assert set(result.evaluation["metrics"]) == {"accuracy", "position_bias"}

    def test_a_comparison_is_the_mean_of_both_orders(self, ranker: str) -> None:
        policy, scorer = Policy.load_saved(ranker), RankerScorer(model=ranker)
        found = scorer.compare(["p", "q"], ["+red", "-blue"], ["-red", "+pink"])
        asked = [("p", "+red", "-red"), ("p", "-red", "+red"), ("q", "-blue", "+pink"), ("q", "+pink", "-blue")]
        logp = answer_logprobs(policy, [encode_prompt(policy.tokenizer, question(*texts)) for texts in asked])
        p_A, p_B = logp.softmax(1).T.tolist()
        assert found == pytest.approx([(p_A[0] + p_B[1]) / 2, (p_A[2] + p_B[3]) / 2], abs=1e-6)

    @pytest.mark.parametrize("bias", [0.0, 1.5])
    def test_the_order_of_two_responses_does_not_count(
        self, bias: float, ranker: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A model that prefers length, and what it reads first."""
        scorer = RankerScorer(model=ranker)

        def answers(policy: Policy, questions: Sequence[Sequence[int]]) -> torch.Tensor:
            texts = [policy.tokenizer.decode(ids).partition("Response A: ")[2] for ids in questions]
            sides = [text.partition("\n\nBetter")[0].split("\n\nResponse B: ") for text in texts]
            logits = torch.tensor([[len(a) + bias, len(b)] for a, b in sides], dtype=torch.float32)
            return logits.log_softmax(1)

        monkeypatch.setattr("reward.models.tournament.answer_logprobs", answers)
        prompts, a, b = ["p", "q", "r"], ["xxxx", "xx", "x"], ["y", "yyy", "y"]
        forward, backward = scorer.compare(prompts, a, b), scorer.compare(prompts, b, a)

        def better(difference: float) -> float:
            p_A, p_B = (1 / (1 + math.exp(-difference - sign * bias)) for sign in (1, -1))
            return (p_A + p_B) / 2

        assert forward == pytest.approx([better(3), better(-1), 0.5], abs=1e-6)
        assert backward == pytest.approx([1 - p for p in forward], abs=1e-6)

    def test_a_single_response_is_compared_with_the_chosen_one(self, ranker: str) -> None:
        scorer = RankerScorer(model=ranker)
        columns = {"chosen": ["-red", None, "-red"]}
        found = scorer.score(["p", "q", "r"], [["+red"], ["+red"], ["+red", "+red"]], **columns)
        assert found == [[pytest.approx(scorer.compare(["p"], ["+red"], ["-red"])[0])], [0], [0, 0]]

    def test_mistakes(self, ranker: str, tiny_model: Path, tmp_path: Path) -> None:
        scorer = RankerScorer(model=ranker)
        for columns in ({}, {"chosen": [None, None]}):
            with pytest.raises(UserError, match=r"only one to each prompt.*evaluation\.scorer=none"):
                scorer.score(["p", "q"], [["a"], ["b"]], **columns)
        with pytest.raises(UserError, match="too long for the 256 positions of the ranker"):
            scorer.score(["p"], [["a" * 100, "b" * 100]])
        with pytest.raises(UserError, match=r"is no ranker: .* probability (1.00|0.99)"):
            RankerScorer(model=str(tiny_model)).score(["p"], [["a", "b"]])
        with pytest.raises(UserError, match=r"reward \(ranker\): model=.* is no saved model; name the folder `final`"):
            make_scorer({"scorer": "ranker", "model": str(tmp_path)})
        assert scorer.score([], []) == []

    def test_a_saved_policy_keeps_its_chat_template(self, tiny_model: Path, tmp_path: Path) -> None:
        policy = Policy.load(str(tiny_model), adapter=Adapter(r=2), chat_template="hh")
        policy.save(tmp_path)
        assert Policy.load_saved(tmp_path).tokenizer.chat_template == policy.tokenizer.chat_template
        assert (
            Policy.load_saved(tmp_path).tokenizer.chat_template != Policy.load(str(tiny_model)).tokenizer.chat_template
        )


def by_strength(*strengths: Sequence[int]) -> tuple[Callable[[Sequence[Match]], list[float]], list[list[Match]]]:
    """The larger one wins; the matches of each round are kept."""
    rounds: list[list[Match]] = []

    def compare(matches: Sequence[Match]) -> list[float]:
        rounds.append(list(matches))
        return [0.9 if strengths[p][i] > strengths[p][j] else 0.1 for p, i, j in matches]

    return compare, rounds


class TestTournament:
    @pytest.mark.parametrize("size", range(1, 10))
    def test_one_comparison_fewer_than_responses_finds_the_best(self, size: int) -> None:
        for best in range(size):
            strengths = [(i * 5) % 11 for i in range(size)]
            strengths[best] = 99
            compare, rounds = by_strength(strengths)
            (won,) = tournament([size], compare)
            matches = [match for matches in rounds for match in matches]
            assert len(matches) == size - 1
            assert len(rounds) == math.ceil(math.log2(size))
            assert won[best] == len(rounds)
            assert sorted(won)[-2:].count(len(rounds)) == 1
            for _, i, j in matches:
                winner, loser = (i, j) if strengths[i] > strengths[j] else (j, i)
                assert won[winner] > won[loser]

    def test_worked_out_by_hand(self) -> None:
        # 5 responses: 0-1, 2-3 and 4 goes through; then 4-1 and 3 goes through; then 3-4.
        compare, rounds = by_strength([1, 2, 3, 4, 9])
        assert tournament([5], compare) == [[0, 1, 0, 2, 3]]
        assert rounds == [[(0, 0, 1), (0, 2, 3)], [(0, 4, 1)], [(0, 3, 4)]]

    def test_nobody_goes_through_twice_without_a_comparison(self) -> None:
        for size in range(2, 70):
            compare, rounds = by_strength([(i * 37) % 101 for i in range(size)])
            (won,) = tournament([size], compare)
            met = [sum(i in match[1:] for matches in rounds for match in matches) for i in range(size)]
            lost = [0 if rounds_won == max(won) else 1 for rounds_won in won]
            assert all(won[i] + lost[i] - met[i] in (0, 1) for i in range(size))

    def test_the_matches_of_a_round_are_asked_together(self) -> None:
        compare, rounds = by_strength([2, 1], [1, 2, 3, 4], [7], [], [5, 6, 4])
        # The last three: 4 goes through and meets 6.
        assert tournament([2, 4, 1, 0, 3], compare) == [[1, 0], [0, 1, 0, 2], [0], [], [0, 2, 1]]
        assert [sorted({p for p, _, _ in matches}) for matches in rounds] == [[0, 1, 4], [1, 4]]

    def test_a_draw_is_won_by_the_first(self) -> None:
        assert tournament([4], lambda matches: [0.5] * len(matches)) == [[2, 0, 1, 0]]


class Alphabetical(RankerScorer):
    """Compares without a model: the text that sorts first is better."""

    def __post_init__(self) -> None: ...

    def compare(self, prompts: Sequence[str], a: Sequence[str], b: Sequence[str]) -> list[float]:
        return [0.8 if one < two else 0.2 for _, one, two in zip(prompts, a, b, strict=True)]


def test_equal_responses_have_equal_scores() -> None:
    found = Alphabetical(model="none").score(["p", "q"], [["c", "a", "c", "b", "a"], ["x", "y"]])
    assert found == [[0, 2, 0, 1, 2], [1, 0]]


class TestCommands:
    @pytest.fixture
    def pairs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.chdir(tmp_path)
        file = tmp_path / "pairs.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows(16)))
        return file

    def test_dry_run(self, tiny_model: Path, pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = [f"model={tiny_model}", f"data={pairs}", "data.heldout_size=4", "trainer.max_length=250"]
        assert main(["method=ranker", "dry_run=true", "trainer.batch_size=8", *words], CONFIGS) == 0
        output = capsys.readouterr().out
        assert "24 rows read as pair" in output  # twelve pairs in both orders
        assert "3 steps of 8 prompts" in output

    def test_train_then_rank_candidates_and_evaluate(
        self, tiny_model: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        common = [f"model={tiny_model}", f"data={pairs}", "data.heldout_size=4", "adapter=none", "evaluation.prompts=3"]
        common += ["evaluation.max_new_tokens=4", "trainer.max_length=250", "trainer.save_steps=null"]
        steps = ["trainer.steps=30", "trainer.batch_size=8", "trainer.learning_rate=1e-2"]
        assert main(["method=ranker", "run_name=ranker", *steps, *common], CONFIGS) == 0
        metrics = json.loads(Path("runs/ranker/evaluation.json").read_text())["metrics"]
        assert set(metrics) == {"accuracy", "position_bias"}  # and nothing of answers to prompts
        assert not Path("runs/ranker/samples.jsonl").exists()

        ranked = [
            "reward=ranker",
            "reward.model=runs/ranker/final",
            "method.samples=3",
            "method.max_new_tokens=6",
        ]
        ranked += ["method.keep_unfinished=true", "trainer.steps=1", "run_name=slic"]
        assert main(["method=slic", *ranked, *common], CONFIGS) == 0
        drawn = [json.loads(line) for line in Path("runs/slic/1-sample/candidates.jsonl").read_text().splitlines()]
        assert {row["chosen_score"] for row in drawn} <= {1, 2}
        assert all(row["chosen_score"] > row["rejected_score"] for row in drawn)
        report = json.loads(Path("runs/slic/2-slic/evaluation.json").read_text())
        assert report["win_rate"]["by"] == "ranker"
        assert 0 < report["metrics"]["ranker"]["before"] < 1

        Path("ranker.yaml").write_text("{scorer: ranker, model: runs/ranker/final}")
        assert evaluate(["--data", str(pairs), "--pairs", "--scorer", "ranker.yaml", "--out", "out"]) == 0
        table = json.loads(Path("out/evaluation.json").read_text())["scorer_accuracy"]["ranker"]
        assert table["all"]["n"] == 16
        prompts = tmp_path / "prompts.jsonl"
        prompts.write_text("".join(json.dumps({"prompt": f"Say {i}"}) + "\n" for i in range(3)))
        capsys.readouterr()
        words = ["runs/slic/2-slic", "--data", str(prompts), "--scorer", "ranker.yaml", "--max-new-tokens", "4"]
        assert evaluate([*words, "--max-length", "120"]) == 2
        assert "a ranker compares responses" in capsys.readouterr().err


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


class TestSettingsOfTheScorer:
    def test_defaults_and_identity(self, tiny_policy: Policy, tiny_model: Path, tmp_path: Path) -> None:
        whole = RankerScorer(model=str(tiny_model))
        assert (whole.dtype, whole.name, whole.costly) == ("float32", "ranker", True)
        files = model_identity(str(tiny_model))
        assert whole.identity() == {"scorer": "RankerScorer", "dtype": "float32", "model": files}
        other = RankerScorer(model=str(tiny_model), dtype="bfloat16", name="other")
        assert other.identity() == {"scorer": "RankerScorer", "dtype": "bfloat16", "model": files}
        tiny_policy.save(tmp_path)
        adapter = RankerScorer(model=str(tmp_path))  # an adapter is a saved model too
        assert adapter.identity() == {
            "scorer": "RankerScorer",
            "dtype": "float32",
            "model": model_identity(str(tmp_path)),
            "base": files,
        }

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_the_type_reaches_the_model(self, dtype: Any, tiny_model: Path) -> None:
        scorer = RankerScorer(model=str(tiny_model), dtype=dtype)
        assert scorer._policy.model.dtype == getattr(torch, dtype)  # pyright: ignore[reportPrivateUsage]

    def test_a_comparison_may_fill_the_last_position(self, ranker: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A question of N tokens and an answer of two, in N + 2 positions but not in N + 1."""
        scorer = RankerScorer(model=ranker)
        policy: Any = scorer._policy  # pyright: ignore[reportPrivateUsage]
        length = len(encode_prompt(policy.tokenizer, question("p", "a", "bb")))
        for limit, fits in ((length + 2, True), (length + 1, False), (None, True)):
            monkeypatch.setattr(Policy, "max_positions", limit)
            if fits:
                assert len(scorer.compare(["p"], ["a"], ["bb"])) == 1
                continue
            with pytest.raises(UserError, match=f"a comparison of {length + 2} tokens is too long for the {limit} pos"):
                scorer.compare(["p"], ["a"], ["bb"])

    @pytest.mark.parametrize(("shares", "ranks"), [((0.9, 0.3), True), ((0.6, 0.3), False), ((0.5, 0.5), True)])
    def test_a_ranker_says_a_or_b_in_half_of_the_cases(
        self, shares: tuple[float, float], ranks: bool, ranker: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The mean probability of the two answers, over the questions."""
        known = torch.tensor([[math.log(share / 2 + 1e-6)] * 2 for share in shares])
        monkeypatch.setattr("reward.models.tournament.answer_logprobs", lambda *_: known)
        scorer = RankerScorer(model=ranker)
        if ranks:
            assert scorer.compare(["p"], ["a"], ["b"]) == [0.5]
            return
        with pytest.raises(UserError, match=r"is no ranker: .* says something else with probability 0\.55"):
            scorer.compare(["p"], ["a"], ["b"])

    def test_several_responses_are_ranked_and_a_single_one_is_compared(self) -> None:
        """Beside the chosen text, of which only the single one makes use."""
        scorer = Alphabetical(model="none")
        columns = {"chosen": ["b", "m", None, "m"]}
        asked = [["c", "a"], ["z"], ["k"], ["a"]]
        assert scorer.score(["p", "q", "r", "s"], asked, **columns) == [[0, 1], [0.2], [0], [0.8]]
        assert scorer.score(["p", "q"], [["c", "a"], ["z"]]) == [[0, 1], [0]]
