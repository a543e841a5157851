"""A ranker as a scorer: comparisons in both orders, and its settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from align import Adapter, Policy, Preferences, Trainer, TrainerConfig
from align.data.encoding import encode_prompt
from align.errors import UserError
from align.scoring.from_config import make_scorer
from align.scoring.identity import model_identity
from reward.models.tournament import RankerScorer
from reward.training.ranker import Ranker, answer_logprobs, question
from tests.reward.training.ranker_pairs import rows


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


class Alphabetical(RankerScorer):
    """Compares without a model: the text that sorts first is better."""

    def __post_init__(self) -> None: ...

    def compare(self, prompts: Sequence[str], a: Sequence[str], b: Sequence[str]) -> list[float]:
        return [0.8 if one < two else 0.2 for _, one, two in zip(prompts, a, b, strict=True)]


def test_equal_responses_have_equal_scores() -> None:
    found = Alphabetical(model="none").score(["p", "q"], [["c", "a", "c", "b", "a"], ["x", "y"]])
    assert found == [[0, 2, 0, 1, 2], [1, 0]]


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
