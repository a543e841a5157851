"""The method `reward`: its loss, its scale, and its report on held-out comparisons."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from align import Adapter, Policy, Preferences, Trainer, TrainerConfig
from align.data.examples import tokenize
from align.errors import UserError
from align.model.batch import Batch
from align.scoring.reward_role import RoleScorer
from reward.models.reward_model import RewardModelScorer
from reward.training import modelling
from reward.training.calibration import Comparison, assess
from reward.training.modelling import RewardModel, bradley_terry_loss, centring_penalty, normalize, score_examples


def all_pairs(*counts: int) -> Tensor:
    """better_PKK of complete rankings of these sizes, best first."""
    width = max(counts)
    better = torch.zeros(len(counts), width, width, dtype=torch.bool)
    for p, k in enumerate(counts):
        better[p, :k, :k] = torch.ones(k, k, dtype=torch.bool).triu(1)
    return better


class TestLoss:
    def test_vector(self) -> None:
        reward = torch.tensor([[2, 1, 0.5, -1], [0.3, 0.8, 0, 0]])
        loss = bradley_terry_loss(reward, all_pairs(4, 2))
        assert loss.tolist() == pytest.approx([0.227613, 0.974077], abs=1e-6)
        assert loss.mean().item() == pytest.approx(0.600845, abs=1e-6)  # not .334251, the mean over all pairs

    def test_single_pairs_of_the_vector(self) -> None:
        ranked = [2, 1, 0.5, -1]
        expected = [0.313262, 0.201413, 0.048587, 0.474077, 0.126928, 0.201413]
        pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
        rewards = [torch.tensor([[ranked[i], ranked[j]]]).float() for i, j in pairs]
        found = [bradley_terry_loss(reward, all_pairs(2)).item() for reward in rewards]
        assert sorted(found) == pytest.approx(sorted(expected), abs=1e-6)

    def test_margin_and_label_smoothing(self) -> None:
        reward = torch.tensor([[1.5, 0.5]])
        margin = bradley_terry_loss(reward, all_pairs(2), margin_P=torch.tensor([0.4]))
        assert margin.item() == pytest.approx(math.log1p(math.exp(-0.6)))
        smoothed = bradley_terry_loss(reward, all_pairs(2), label_smoothing=0.1)
        assert smoothed.item() == pytest.approx(0.9 * math.log1p(math.exp(-1)) + 0.1 * math.log1p(math.exp(1)))

    def test_a_prompt_without_a_comparison_has_no_loss(self) -> None:
        reward = torch.tensor([[1.0, 2.0]], requires_grad=True)
        loss = bradley_terry_loss(reward, torch.zeros(1, 2, 2, dtype=torch.bool)).sum()
        loss.backward()
        assert loss.item() == 0
        assert reward.grad is not None
        assert reward.grad.tolist() == [[0, 0]]

    def test_centring(self) -> None:
        assert centring_penalty(torch.tensor([[2.0, 1.0]]), all_pairs(2)).item() == 9
        three = centring_penalty(torch.tensor([[2.0, 1.0, -1.0]]), all_pairs(3))
        assert three.item() == pytest.approx((9 + 1 + 0) / 3)


class TestTraining:
    def test_a_ranking_is_one_element(self, tiny_policy: Policy) -> None:
        rows = [
            {"prompt": "p", "chosen": a, "rejected": b, "prompt_id": "one"}
            for a, b in [("aa", "b"), ("aa", "cccc"), ("b", "cccc")]
        ]
        rows.append({"prompt": "q", "chosen": "d", "rejected": "eeee", "prompt_id": "two"})
        data = tokenize(Preferences.from_rows(rows), tiny_policy.tokenizer, max_length=64, unit="ranking")
        batch = Batch.from_examples(data[i] for i in range(len(data)))
        method = RewardModel()
        tiny_policy.require(("reward",))
        with tiny_policy.use("reward"):
            loss = method.loss(tiny_policy, batch)
            reward = tiny_policy.scalars(batch)
        assert method.weight(batch) == 2
        expected = bradley_terry_loss(reward, all_pairs(3, 2)).sum()
        assert loss.sums["reward"].item() == pytest.approx(expected.item())
        assert loss.metrics["accuracy"][1] == 4

    def test_it_learns_normalises_and_reports(self, tiny_model: Path, tmp_path: Path, pairs: Preferences) -> None:
        policy = Policy.load(str(tiny_model))
        before = {name: value.clone() for name, value in policy.roles.parameters("policy").items()}
        config = TrainerConfig(epochs=6, batch_size=8, max_length=200, learning_rate=3e-3, save_steps=None)
        result = Trainer(policy, tmp_path / "run", config).fit(RewardModel(), pairs, pairs)
        assert result.evaluation is not None
        report = result.evaluation["reward_model"]
        assert report["accuracy"] > 0.9
        assert (result.folder / "reliability.png").stat().st_size > 5000
        for name, value in policy.roles.parameters("policy").items():
            assert torch.equal(value, before[name])
        data = tokenize(pairs, policy.tokenizer, max_length=200, unit="ranking")
        chosen = [row[0] for row in score_examples(policy, [data[i] for i in range(len(data))])]
        assert sum(chosen) / len(chosen) == pytest.approx(0, abs=1e-4)

    def test_of_much_data_the_mean_is_that_of_rows_spread_over_it(
        self, tiny_policy: Policy, pairs: Preferences, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Three of forty: the first, the one in the middle and the last."""
        monkeypatch.setattr(modelling, "_REFERENCES", 3)
        tiny_policy.require(("reward",))
        data = tokenize(pairs, tiny_policy.tokenizer, max_length=200, unit="ranking")
        first, middle, last = (row[0] for row in score_examples(tiny_policy, [data[i] for i in (0, 19, 39)]))
        normalize(tiny_policy, data)
        assert tiny_policy.roles.heads["reward"].mean == pytest.approx((first + middle + last) / 3, abs=1e-5)

    def test_unit_variance(self, tiny_policy: Policy, pairs: Preferences) -> None:
        tiny_policy.require(("reward",))
        data = tokenize(pairs, tiny_policy.tokenizer, max_length=200, unit="ranking")
        tiny_policy.roles.heads["reward"].mean, tiny_policy.roles.heads["reward"].std = 5.0, 3.0  # of an earlier run
        normalize(tiny_policy, data, unit_variance=True)
        chosen = torch.tensor([row[0] for row in score_examples(tiny_policy, [data[i] for i in range(len(data))])])
        assert chosen.mean().item() == pytest.approx(0, abs=1e-4)
        assert chosen.std().item() == pytest.approx(1, abs=1e-3)

    @pytest.mark.parametrize("adapter", ["lora", "none"])
    def test_the_scorer_reads_what_was_trained(
        self, adapter: str, tiny_model: Path, tmp_path: Path, pairs: Preferences
    ) -> None:
        policy = Policy.load(str(tiny_model), adapter=Adapter(r=4) if adapter == "lora" else None)
        config = TrainerConfig(steps=3, batch_size=8, max_length=200, learning_rate=3e-3, save_steps=None)
        folder = Trainer(policy, tmp_path / "run", config).fit(RewardModel(), pairs).folder / "final" / "reward"
        assert json.loads((folder / "scale.json").read_text())["mean"] != 0
        data = tokenize(pairs, policy.tokenizer, max_length=200, unit="pair")
        examples = [data[i] for i in range(5)]
        ours = score_examples(policy, examples)
        scorer = RewardModelScorer(model=str(folder))
        rows = [pairs[example.index] for example in examples]
        theirs = scorer.score(
            [row["prompt"][0]["content"] for row in rows],
            [[row["chosen"][0]["content"], row["rejected"][0]["content"]] for row in rows],
        )
        assert torch.allclose(torch.tensor(ours), torch.tensor(theirs), atol=1e-5)

    def test_the_scale_is_taken_off_after_the_mean(self, tiny_policy: Policy, tmp_path: Path) -> None:
        """``(w·h − mean)/std`` in the head and in the scorer, with a mean of 3 and a deviation of 2."""
        tiny_policy.require(("reward",))
        head = tiny_policy.roles.heads["reward"]
        asked: Any = (["Is it so?", "And this?"], [["yes", "no"], ["perhaps"]])
        raw = RoleScorer(tiny_policy).score(*asked)
        head.mean, head.std = 3.0, 2.0
        tiny_policy.save(tmp_path)
        for found in (
            RoleScorer(tiny_policy).score(*asked),
            RewardModelScorer(model=str(tmp_path / "reward")).score(*asked),
        ):
            for row, values in zip(found, raw, strict=True):
                assert row == pytest.approx([(value - 3) / 2 for value in values], abs=1e-5)

    def test_prompts_without_a_comparison_do_not_count(self, tiny_policy: Policy) -> None:
        """The step's loss is divided by the weights of the prompts that have one."""
        rows = [
            {"prompt": "p", "chosen": "aa", "rejected": "b", "weight": 3.0},
            {"prompt": "q", "chosen": "d", "rejected": "eeee", "weight": 5.0},
        ]
        data = tokenize(Preferences.from_rows(rows), tiny_policy.tokenizer, max_length=64, unit="ranking")
        batch = Batch.from_examples(data[i] for i in range(2))
        weight_P = batch["weight_P"]
        assert RewardModel().weight(batch) == weight_P.sum().item()
        better_PKK = batch["better_PKK"].clone()
        better_PKK[1] = False
        assert RewardModel().weight(batch.with_columns(better_PKK=better_PKK)) == weight_P[0].item()

    def test_groups_by_length(self, tiny_policy: Policy) -> None:
        """Three pairs with the longer response preferred, two with the shorter, one of equal lengths."""
        texts = [("aaaa", "b"), ("aaa", "b"), ("aaaaa", "bb"), ("a", "bbbb"), ("a", "bbb"), ("aa", "bb")]
        rows = [{"prompt": f"p{i}", "chosen": a, "rejected": b} for i, (a, b) in enumerate(texts)]
        data = tokenize(Preferences.from_rows(rows), tiny_policy.tokenizer, max_length=64, unit="ranking")
        tiny_policy.require(("reward",))
        found = RewardModel().report(tiny_policy, data, data, None)
        groups = found["reward_model"]["accuracy_by"]["length_difference"]
        assert {name: group["n"] for name, group in groups.items()} == {
            "chosen is longer": 3,
            "equally long": 1,
            "chosen is shorter": 2,
        }
        assert found["intervals"]["accuracy"]["after"]["n"] == 6
        assert found["metrics"]["temperature"]["after"] is None
        assert found["notes"] == ["6 held-out comparisons are too few to fit a temperature: it takes at least 50."]


@pytest.mark.parametrize("settings", [{"label_smoothing": 0.5}, {"label_smoothing": -0.1}, {"centring": -1.0}])
def test_wrong_settings(settings: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(settings))):
        RewardModel(**settings)


class Given:
    """A policy that gives these scalars."""

    def __init__(self, reward_PK: Tensor) -> None:
        self.reward_PK = reward_PK

    def scalars(self, batch: Batch) -> Tensor:
        assert batch.valid_PK.shape == self.reward_PK.shape
        return self.reward_PK


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


class TestLossOfAMethod:
    """A ranking 2 > 1 > −1 of weight 3 with margin ½; a pair ordered wrong; a tie; a prompt without a comparison."""

    reward = ((2.0, 1.0, -1.0), (0.0, 0.5, 0.0), (1.5, 1.5, 0.0), (7.0, 0.0, 0.0))
    weights = (3.0, 1.0, 0.5, 100.0)
    margins = (0.5, math.nan, math.nan, math.nan)
    counts = (3, 2, 2, 1)

    def batch(self) -> Batch:
        return Batch(
            prompt_ids=([1],) * 4,
            response_ids=tuple(([2],) * count for count in self.counts),
            rows=(0, 1, 2, 3),
            columns={
                "weight_P": torch.tensor(self.weights),
                "margin_P": torch.tensor(self.margins),
                "better_PKK": all_pairs(*self.counts),
            },
        )

    def by_hand(self, epsilon: float, centring: float) -> float:
        total = 0.0
        for reward, weight, margin, count in zip(self.reward, self.weights, self.margins, self.counts, strict=True):
            pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
            for i, j in pairs:
                delta = reward[i] - reward[j] - (0 if math.isnan(margin) else margin)
                loss = -(1 - epsilon) * log_sigmoid(delta) - epsilon * log_sigmoid(-delta)
                total += weight * (loss + centring * (reward[i] + reward[j]) ** 2) / len(pairs)
        return total

    @pytest.mark.parametrize(("epsilon", "centring"), [(0.0, 0.0), (0.2, 0.0), (0.0, 0.1), (0.1, 0.01)])
    def test_every_setting_and_column_counts(self, epsilon: float, centring: float) -> None:
        method, batch = RewardModel(label_smoothing=epsilon, centring=centring), self.batch()
        reward = torch.tensor(self.reward, requires_grad=True)
        found = method.loss(Given(reward), batch)  # pyright: ignore[reportArgumentType]
        assert found.sums.keys() == {"reward"}
        expected = self.by_hand(epsilon, centring)
        assert found.sums["reward"].item() == pytest.approx(expected, rel=1e-5)
        assert method.weight(batch) == 4.5
        loss, weight = found.metrics["loss"]
        assert (loss.item(), weight) == (pytest.approx(expected, rel=1e-5), 4.5)
        assert not any(
            isinstance(value, Tensor) and value.requires_grad for pair in found.metrics.values() for value in pair
        )
        found.sums["reward"].backward()
        assert reward.grad is not None
        assert not reward.grad[3].any()

    def test_metrics_are_means_over_comparisons(self) -> None:
        """Differences 1, 3, 2 of weight 3; −½ of weight 1; 0 of weight ½: 9¼ of 10½ are right."""
        metrics = RewardModel().loss(Given(torch.tensor(self.reward)), self.batch()).metrics  # pyright: ignore
        found = {name: float(value) / float(weight) for name, (value, weight) in metrics.items() if name != "loss"}
        assert found == pytest.approx(
            {
                "accuracy": 9.25 / 10.5,
                "margin": (3 * (1 + 3 + 2) - 0.5 + 0) / 10.5,
                "rewards/chosen": (3 * (2 + 2 + 1) + 0 + 0.75) / 10.5,
                "rewards/rejected": (3 * (1 - 1 - 1) + 0.5 + 0.75) / 10.5,
            }
        )
        assert {float(weight) for name, (_, weight) in metrics.items() if name != "loss"} == {10.5}


def test_defaults_of_the_method() -> None:
    assert dataclasses.asdict(RewardModel()) == {"label_smoothing": 0.0, "centring": 0.0, "unit_variance": False}
    assert dataclasses.asdict(RewardModel.optimization) == {
        "learning_rate": 1e-4,
        "full_learning_rate": 9e-6,
        "epochs": 1,
        "batch_size": 16,
        "warmup": 0.05,
        "schedule": "cosine",
    }
    assert (RewardModel.unit, RewardModel.headline, RewardModel.dropout) == ("ranking", "accuracy", True)
    assert (RewardModel().trains, RewardModel().roles, RewardModel().generates) == (("reward",), ("reward",), False)
    assert modelling._REFERENCES == 10_000  # pyright: ignore[reportPrivateUsage]


def test_the_comparisons_that_are_assessed(
    tiny_policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rankings with what the data says about them; rewards by hand."""
    rows = [
        {"prompt": "p", "prompt_id": "one", "source": "s", **pair}
        for pair in (
            {"chosen": "aa", "rejected": "b", "chosen_score": 3, "rejected_score": 1},
            {"chosen": "aa", "rejected": "cccc", "chosen_score": 3, "rejected_score": 0.5},
        )
    ]
    none = dict.fromkeys(("chosen_score", "rejected_score", "source"))
    rows.append({"prompt": "q", "prompt_id": "two", "chosen": "d", "rejected": "eeee", **none})
    data = tokenize(Preferences.from_rows(rows), tiny_policy.tokenizer, max_length=64, unit="ranking")
    first, second = (data[i] for i in range(2))
    reward = {"aa": 2.0, "b": 0.5, "cccc": 3.0, "d": -1.0, "eeee": -4.0}
    tiny_policy.require(("reward",))

    def given(policy: Policy, examples: Any, **_: Any) -> list[list[float]]:
        return [[reward[policy.decode(ids)] for ids in example.responses] for example in examples]

    monkeypatch.setattr(modelling, "score_examples", given)
    seen: list[Comparison] = []
    monkeypatch.setattr(modelling, "assess", lambda found: seen.extend(found) or assess(found))
    pictures: list[Any] = []
    monkeypatch.setattr(modelling, "plot_reliability", lambda *arguments: pictures.append(arguments))
    report = RewardModel(unit_variance=True).report(tiny_policy, data, data, tmp_path)
    assert [tiny_policy.decode(ids) for ids in first.responses] == ["aa", "b", "cccc"]
    assert seen == [
        Comparison(delta=1.5, prompt=first.index, longer=1, gap=2.0, source="s"),
        Comparison(delta=-1.0, prompt=first.index, longer=-2, gap=2.5, source="s"),
        Comparison(delta=-2.5, prompt=first.index, longer=-3, gap=0.5, source="s"),  # b and cccc, by their scores
        Comparison(delta=3.0, prompt=second.index, longer=-3, gap=None, source=None),
    ]
    chosen = [reward[tiny_policy.decode(example.responses[0])] for example in (first, second)]
    head = tiny_policy.roles.heads["reward"]
    assert head.mean == pytest.approx(sum(chosen) / 2)
    assert head.std == pytest.approx(abs(chosen[0] - chosen[1]) / math.sqrt(2))
    assert report["reward_model"] == assess(seen)
    shown = ("accuracy", "expected_calibration_error", "calibration_error_if_calibrated", "temperature")
    assert report["metrics"] == {name: {"before": None, "after": report["reward_model"][name]} for name in shown}
    assert report["intervals"] == {"accuracy": {"after": report["reward_model"]["interval"]}}
    assert report["notes"] == ["4 held-out comparisons are too few to fit a temperature: it takes at least 50."]
    assert pictures == [(report["reward_model"], tmp_path / "reliability.png")]
    assert RewardModel().report(tiny_policy, data, None, tmp_path) == {}
    assert head.std == 1.0  # only the mean is taken unless asked


def test_rewards_that_are_all_equal_keep_their_deviation(tiny_policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"prompt": f"p{i}", "chosen": "a", "rejected": "b"} for i in range(3)]
    data = tokenize(Preferences.from_rows(rows), tiny_policy.tokenizer, max_length=64, unit="ranking")
    tiny_policy.require(("reward",))
    monkeypatch.setattr(modelling, "score_examples", lambda _, examples, **__: [[2.5] for _ in examples])
    normalize(tiny_policy, data, unit_variance=True)
    head = tiny_policy.roles.heads["reward"]
    assert (head.mean, head.std) == (2.5, 1.0)
