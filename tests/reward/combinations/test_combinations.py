from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from align.errors import ScorerError, UserError
from align.scoring.checked_scores import deviations, record_scores, score
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
    assert {name: value for name, value in means.items() if "milli" not in name} == {
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
    assert deviations([log.values])["scores/reward/std"] == pytest.approx(0.5)
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


def settings_of(scorer: Any) -> dict[str, Any]:
    return {field.name: getattr(scorer, field.name) for field in dataclasses.fields(scorer)}


def test_defaults() -> None:
    base = Constant(1)
    assert settings_of(Ensemble(scorers=FOUR)) == {
        "scorers": FOUR,
        "combine": "mean",
        "penalty": 0.5,
        "name": "ensemble",
    }
    assert settings_of(WeightedSum(scorers=FOUR)) == {"scorers": FOUR, "weights": {}, "clip": {}, "name": "reward"}
    assert settings_of(LengthCorrected(base=base, weight=1)) == {
        "base": base,
        "weight": 1,
        "per": 100,
        "free": 0,
        "unit": "words",
        "name": "constant_length_corrected",
    }
    assert LengthCorrected(base=base, weight=1, name="mine").name == "mine"


@dataclass(frozen=True)
class Lengths:
    """The number of letters of each response, as negative numbers for the column ``minus``."""

    name: str = "lengths"

    def score(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], minus: Sequence[bool] = ()
    ) -> list[list[float]]:
        signs = [-1 if turned else 1 for turned in minus or [False] * len(prompts)]
        return [[sign * float(len(text)) for text in row] for sign, row in zip(signs, responses, strict=True)]


PROMPTS, RESPONSES, MINUS = ["p", "q"], [["a", "abcd"], ["ab"]], [False, True]


@pytest.mark.parametrize(
    ("penalty", "combine", "expected"),
    [
        # The scores are 1 and 3, 4 and 3, −2 and 3; deviations 1, ½ and 5/2
        (0.5, "mean", [[2, 3.5], [0.5]]),
        (0.5, "min", [[1, 3], [-2]]),
        (0.5, "mean_minus_std", [[2 - 0.5, 3.5 - 0.25], [0.5 - 1.25]]),
        (2.0, "mean_minus_std", [[2 - 2, 3.5 - 1], [0.5 - 5]]),
        (0.0, "mean_minus_std", [[2, 3.5], [0.5]]),
    ],
)
def test_each_response_is_combined_by_itself(penalty: float, combine: Any, expected: list[list[float]]) -> None:
    ensemble = Ensemble(scorers={"a": Lengths(), "b": Constant(3)}, penalty=penalty, combine=combine)
    assert ensemble.score(PROMPTS, RESPONSES, minus=MINUS) == expected


@pytest.mark.parametrize(
    ("weights", "clip", "expected"),
    [
        ({}, {}, [[1 + 3, 4 + 3], [-2 + 3]]),
        ({"a": 2}, {}, [[2 + 3, 8 + 3], [-4 + 3]]),
        ({"a": 2, "b": -1}, {}, [[2 - 3, 8 - 3], [-4 - 3]]),
        ({"b": 0}, {"a": [0, 2]}, [[1, 2], [0]]),  # clipped below and above
        ({"a": 2, "b": 0}, {"a": [-1, 3]}, [[2, 6], [-2]]),  # before it is weighed
        ({}, {"a": [-9, 1], "b": [4, 5]}, [[1 + 4, 1 + 4], [-2 + 4]]),
        ({"b": 0}, {"a": [-math.inf, 2]}, [[1, 2], [-2]]),
    ],
)
def test_sums_by_hand(weights: Any, clip: Any, expected: list[list[float]]) -> None:
    scorer = WeightedSum(scorers={"a": Lengths(), "b": Constant(3)}, weights=weights, clip=clip)
    assert scorer.score(PROMPTS, RESPONSES, minus=MINUS) == expected


def test_a_sum_over_the_scorers_that_apply() -> None:
    """1 where it applies, to responses of more than three letters."""
    scorer = WeightedSum(scorers={"a": Lengths(), "long": LONG_ONLY}, weights={"long": 10})
    assert scorer.score(PROMPTS, RESPONSES) == [[1, 14], [2]]
    with pytest.raises(ScorerError, match="no scorer applies to a response to prompt 0"):
        WeightedSum(scorers={"long": LONG_ONLY}).score(PROMPTS, RESPONSES)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scorers": {}}, "scorers is empty; name at least one"),
        ({"weights": {"c": 1}}, "'c' is not one of the scorers first, second"),
        ({"clip": {"frist": [0, 1]}}, 'is not one of the scorers first, second.*Did you mean "first"'),
        ({"weights": {"first": math.nan}}, "weights.first=nan is not a finite number"),
        ({"weights": {"first": math.inf}}, "weights.first=inf is not a finite number"),
        ({"weights": {"first": -math.inf}}, "weights.first=-inf is not a finite number"),
        ({"clip": {"first": [1, 0]}}, r"clip\.first=\[1, 0\] must be two numbers, the lower first"),
        ({"clip": {"first": [1, 1]}}, "must be two numbers, the lower first"),
        ({"clip": {"first": [1]}}, "must be two numbers, the lower first"),
        ({"clip": {"first": [0, 1, 2]}}, "must be two numbers, the lower first"),
        ({"clip": {"first": [math.nan, 1]}}, "must be two numbers, the lower first"),
        ({"scorers": {"first": Constant(1), "second": object()}}, "second"),
    ],
)
def test_settings_of_a_sum_are_checked(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        WeightedSum(**{"scorers": {"first": Constant(1), "second": Constant(2)}, **settings})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scorers": {}}, "there are no scorers to combine"),
        ({"penalty": -0.1}, "penalty=-0.1 must be a finite number of at least 0"),
        ({"penalty": math.inf}, "penalty=inf must be a finite number of at least 0"),
        ({"scorers": {"first": object()}}, "first"),
    ],
)
def test_settings_of_an_ensemble_are_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Ensemble(**{"scorers": FOUR, **settings})


@pytest.mark.parametrize(
    ("settings", "text", "penalty"),
    [
        ({"weight": 2}, "a b c", 2 * 3 / 100),
        ({"weight": 2, "per": 4}, "a b c", 2 * 3 / 4),
        ({"weight": 2, "per": 4, "free": 2}, "a b c", 2 * 1 / 4),
        ({"weight": 2, "per": 4, "free": 3}, "a b c", 0),
        ({"weight": 2, "per": 4, "free": 9}, "a b c", 0),
        ({"weight": 2, "per": 4, "unit": "characters"}, "a b c", 2 * 5 / 4),
        ({"weight": 0}, "a b c", 0),
    ],
)
def test_penalties_by_hand(settings: dict[str, Any], text: str, penalty: float) -> None:
    scorer = LengthCorrected(base=Constant(5), **settings)
    assert scorer.penalty(text) == pytest.approx(penalty)
    assert scorer.score(["p"], [[text]]) == [[pytest.approx(5 - penalty)]]


def test_a_correction_passes_the_columns_on() -> None:
    scorer = LengthCorrected(base=Lengths(), weight=1, per=1)
    assert scorer.score(PROMPTS, RESPONSES, minus=MINUS) == [[1 - 1, 4 - 1], [-2 - 1]]
