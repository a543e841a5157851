"""The cosine length reward: by hand, beside TRL's, and on responses of any kind."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from trl.rewards import get_cosine_scaled_reward

from align.errors import ScorerError, UserError
from align.scoring.from_config import make_scorer
from reward import CosineLength, ExactMatch, FunctionScorer, Math, TokenF1


@dataclass(frozen=True)
class Right:
    """1 where the response has a plus sign."""

    name: str = "right"

    def score(self, prompts: Any, responses: Any, **_columns: Any) -> list[list[float]]:
        del prompts
        return [[float("+" in text) for text in row] for row in responses]


def cosine(response: str, **settings: Any) -> float:
    values: dict[str, Any] = {"base": Right(), "maximum": 12, "unit": "characters", **settings}
    scorer = CosineLength(**values)
    return scorer.score(["p"], [[response]])[0][0]


@pytest.mark.parametrize(
    ("n", "right", "wrong"),
    # cos 0, π/3, π/2, 2π/3, π: 1, ½, 0, −½, −1; right .5 + .25·(1 + cos), wrong −.5 − .25·(1 + cos).
    [(4, 0.875, -0.875), (6, 0.75, -0.75), (8, 0.625, -0.625), (12, 0.5, -0.5), (13, 0.5, -0.5), (24, 0.5, -0.5)],
)
def test_by_hand(n: int, right: float, wrong: float) -> None:
    assert cosine("+" * n) == pytest.approx(right, abs=1e-12)
    assert cosine("-" * n) == pytest.approx(wrong, abs=1e-12)
    assert cosine("-" * n, wrong_short=-10, wrong_long=0) == pytest.approx(20 * (wrong + 0.5), abs=1e-12)
    assert cosine("+ " * n, unit="words") == pytest.approx(right, abs=1e-12)


@pytest.mark.parametrize(
    ("response", "score"),
    [
        ("", -1),
        ("+", 0.5 + 0.25 * (1 + math.cos(math.pi / 12))),
        (" " * 12, -0.5),
        ("+" * 1_000_000, 0.5),
        ("-" * 1_000_000, -0.5),
        ("<think></think>+", 0.5),  # thoughts are length
        ("<think>", -0.5 - 0.25 * (1 + math.cos(math.pi * 7 / 12))),
        ("日本語日本語", -0.75),
        ("\x00" * 6, -0.75),
        ("\ud800" * 6, -0.75),
        ("e\u0301" * 3, -0.75),
        ("\n" * 8, -0.625),
    ],
)
def test_responses_of_any_kind(response: str, score: float) -> None:
    assert cosine(response) == pytest.approx(score, abs=1e-12)


def test_trl(tiny_model: Path) -> None:
    """Its function on as many tokens (the tiny tokenizer has one for each byte), with answers that both read alike."""
    texts = [rf"\boxed{{{n}}}" + "x" * pad for n in (3, 4) for pad in (0, 3, 11, 40)]
    flat = get_cosine_scaled_reward(max_len=32)(
        completions=[[{"role": "assistant", "content": text}] for text in texts],
        solution=["$4$"] * len(texts),
        completion_ids=[[0] * len(text) for text in texts],
    )
    scorer = CosineLength(base=Math(), maximum=32, tokenizer=str(tiny_model))
    found = scorer.score(["p"], [texts], answer=["4"])
    assert found[0] == pytest.approx(flat, abs=1e-12)
    assert min(flat) < -0.9
    assert max(flat) > 0.9


def test_a_score_below_one_is_wrong() -> None:
    scorer = CosineLength(base=TokenF1(), maximum=100, unit="words")
    assert scorer.score(["p"], [["Denver Broncos", "Denver"]], answer=["Denver Broncos"])[0][0] > 0.9
    assert scorer.score(["p"], [["Denver Broncos", "Denver"]], answer=["Denver Broncos"])[0][1] < -0.9


@pytest.mark.parametrize("value", [2.0, -0.5, 1.001])
def test_a_base_that_is_no_verifier_is_refused(value: float) -> None:
    def reward(prompts: Any, responses: Any) -> Any:  # noqa: ARG001
        return [[value for _ in row] for row in responses]

    base = FunctionScorer(function=reward)
    with pytest.raises(ScorerError, match=f"base must be a verifier with scores from 0 to 1; 'reward' gave {value:g}"):
        cosine("a", base=base)


def test_it_applies_where_the_base_does() -> None:
    def some(completions: list[str]) -> list[float | None]:
        return [1.0 if text else None for text in completions]

    scorer = CosineLength(base=FunctionScorer(function=some), maximum=1, unit="words")
    assert scorer.score_where_it_applies(["p"], [["a", ""]]) == [[0.5, None]]
    with pytest.raises(ScorerError, match="does not apply to response 1 of prompt 0"):
        scorer.score(["p"], [["a", ""]])


def test_the_answer_is_needed() -> None:
    with pytest.raises(UserError, match="the exact_match scorer needs the data column `answer`"):
        cosine("a", base=ExactMatch())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base": "math"}, r"base='math' is not a scorer; write base: \{scorer: NAME\}"),
        ({"maximum": 0}, "maximum must be at least 1, not 0"),
        ({"unit": "tokens"}, "cosine_length: unit=tokens needs `tokenizer`"),
        ({"right_long": -0.5}, r"right_long=-0.5 must both be above wrong_short=-1 and wrong_long=-0.5, or a wrong"),
        ({"wrong_long": 0.5}, "or a wrong answer pays"),
        ({"wrong_short": 1}, "or a wrong answer pays"),
        ({"right_short": math.nan}, "or a wrong answer pays"),
        ({"right_short": math.inf}, "or a wrong answer pays"),
        ({"right_short": "1"}, "right_short must be a number, not '1'"),
        ({"max_len": 10}, "max_len is not a setting of CosineLength"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    values = {"base": {"scorer": "math"}, "maximum": 9, "unit": "words", **settings}
    with pytest.raises(UserError, match=message):
        make_scorer({"scorer": "cosine_length", **values})
