from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from align.errors import ScorerError, UserError
from align.scoring.checked_scores import record_scores, score
from reward.combinations.ensemble import Ensemble
from reward.combinations.length_correction import LengthCorrected
from reward.combinations.weighted_sum import WeightedSum
from reward.functions import FunctionScorer


@dataclass(frozen=True)
class Constant:
    """Gives every response the same score."""

    value: float
    name: str = "constant"

    def score(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **_columns: Sequence[Any]
    ) -> list[list[float]]:
        del prompts
        return [[self.value for _ in row] for row in responses]


def only_long(completions: list[str]) -> list[float | None]:
    """A function of TRL's form that applies to long responses only."""
    return [1.0 if len(text) > 3 else None for text in completions]


LONG_ONLY = FunctionScorer(function=only_long, conversational=False)
FOUR = {"a": Constant(1), "b": Constant(2), "c": Constant(3), "d": Constant(6)}


@pytest.mark.parametrize(
    ("combine", "expected"),
    [("mean", 3.0), ("min", 1.0), ("mean_minus_std", 3 - 0.5 * math.sqrt((4 + 1 + 0 + 9) / 4))],
)
def test_ensembles_by_hand(combine: Literal["mean", "min", "mean_minus_std"], expected: float) -> None:
    assert Ensemble(scorers=FOUR, combine=combine).score(["p", "q"], [["a", "b"], ["c"]]) == [
        [pytest.approx(expected)] * 2,
        [pytest.approx(expected)],
    ]


def test_what_does_not_apply_is_left_out() -> None:
    ensemble = Ensemble(scorers={"a": Constant(0), "b": LONG_ONLY})
    assert ensemble.score(["p"], [["long", "no"]]) == [[0.5, 0.0]]


def test_each_scorer_reports_its_mean_deviation_and_time() -> None:
    inner = Ensemble(scorers={"low": Constant(1), "high": Constant(3)})
    whole = WeightedSum(scorers={"both": inner, "long": LONG_ONLY, "again": inner}, weights={"both": 2})
    with record_scores() as log:
        score(whole, ["p", "q"], [["long", "no"], ["no"]])
        score(whole, ["r"], [["longer"]])
    metrics = log.metrics()
    means = {name: total / weight for name, (total, weight) in metrics.items() if weight and name.count("/") < 3}
    assert {name: value for name, value in means.items() if "milli" not in name and "std" not in name} == {
        "scores/reward": 2 * 2 + 2 + 2 / 4,
        "scores/both": 2,
        "scores/both/low": 1,
        "scores/both/high": 3,
        "scores/long": 1,
        "scores/again": 2,
        "scores/again/low": 1,
        "scores/again/high": 3,
    }
    assert metrics["scores/long"][1] == 2  # of the four responses, those to which it applies
    assert means["scores/reward/std"] == pytest.approx(0.5)
    assert metrics["scores/reward/milliseconds"][0] >= metrics["scores/both/milliseconds"][0] > 0
    with record_scores() as silent:
        pass
    assert silent.metrics() == {}


def test_no_scorer_that_applies_is_an_error() -> None:
    with pytest.raises(ScorerError, match="no scorer applies"):
        Ensemble(scorers={"b": LONG_ONLY}).score(["p"], [["no"]])


def test_a_score_that_is_missing_is_an_error() -> None:
    """Of a scorer that has not said where it applies."""
    gap: Any = Constant(None)  # pyright: ignore[reportArgumentType]
    for combination in (
        Ensemble(scorers={"a": Constant(1), "b": gap}),
        WeightedSum(scorers={"a": Constant(1), "b": gap}),
        LengthCorrected(base=gap, weight=1),
    ):
        with pytest.raises(ScorerError, match="'constant' does not apply to response 0 of prompt 0"):
            combination.score(["p"], [["a"]])


def test_nan_from_a_scorer_is_an_error() -> None:
    with pytest.raises(ScorerError, match="finite"):
        Ensemble(scorers={"a": Constant(1), "b": Constant(math.nan)}).score(["p"], [["a"]])


@pytest.mark.parametrize("settings", [{"scorers": {}}, {"combine": "max"}, {"penalty": -1.0}, {"penalty": math.nan}])
def test_ensemble_settings_are_checked(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Ensemble(**{"scorers": FOUR, **settings})


def test_length_correction_by_hand() -> None:
    """5 words, 2 free, .3 per 10 words: 1 − .3·3/10 = .91."""
    scorer = LengthCorrected(base=Constant(1), weight=0.3, per=10, free=2)
    assert scorer.name == "constant_length_corrected"
    assert scorer.score(["p"], [["a b c d e", "a b", ""]]) == [[pytest.approx(0.91), 1, 1]]


def test_length_correction_is_linear() -> None:
    scorer = LengthCorrected(base=Constant(0), weight=1, per=4, unit="characters")
    (scores,) = scorer.score(["p"], [["a" * n for n in range(0, 40, 10)]])
    assert scores == [0, -2.5, -5, -7.5]


def test_length_correction_keeps_what_does_not_apply() -> None:
    scorer = LengthCorrected(base=LONG_ONLY, weight=1, per=1)
    assert scorer.score_where_it_applies(["p"], [["no", "a b c"]]) == [[None, -2]]
    with pytest.raises(ScorerError, match="does not apply"):
        scorer.score(["p"], [["no"]])


@pytest.mark.parametrize("settings", [{"weight": -1}, {"weight": math.inf}, {"per": 0}, {"free": -1}, {"unit": "x"}])
def test_length_correction_settings_are_checked(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        LengthCorrected(**{"base": Constant(1), "weight": 1.0, **settings})
