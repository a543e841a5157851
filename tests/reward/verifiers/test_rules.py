from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trl.rewards import get_repetition_penalty_reward, think_format_reward

from align.errors import UserError
from reward.verifiers.rules import Language, Length, Regex, Repetition, detect_languages

THINK = r"(?s)^<think>(?!.*<think>)(.*?)</think>.*$"


@pytest.mark.parametrize(
    ("words", "score"),
    [(0, 0.0), (2, 0.5), (4, 1.0), (7, 1.0), (10, 1.0), (15, 0.5), (20, 0.0), (30, 0.0)],
)
def test_length_has_linear_slopes(words: int, score: float) -> None:
    """Minimum 4, maximum 10: 2/4 = .5 below; 2 − 15/10 = .5 above."""
    scorer = Length(minimum=4, maximum=10)
    assert scorer.score(["p"], [["w " * words]]) == [[score]]


def test_length_in_characters() -> None:
    assert Length(maximum=4, unit="characters").judge("héllo").score == 2 - 5 / 4


@pytest.mark.parametrize(
    "settings_",
    [{}, {"minimum": 0}, {"maximum": -1}, {"minimum": 5, "maximum": 4}, {"minimum": 1, "unit": "tokens"}],
)
def test_length_settings_are_checked(settings_: dict[str, object]) -> None:
    with pytest.raises(UserError):
        Length(**settings_)  # pyright: ignore[reportArgumentType]


def test_regex_agrees_with_trl_on_the_think_format() -> None:
    texts = [
        "<think>\na\n</think>\nb",
        "<think>a</think>",
        "<think>a",
        "a</think>",
        "x<think>a</think>",
        "<think><think>a</think>",
    ]
    expected = think_format_reward([[{"role": "assistant", "content": text}] for text in texts])
    assert Regex(pattern=THINK).score(["p"], [texts]) == [expected]
    assert 0 < sum(expected) < len(texts)


def test_regex_in_part_and_in_full() -> None:
    assert Regex(pattern="b+").judge("abba").score == 1
    assert Regex(pattern="b+", full=True).judge("abba").score == 0
    assert Regex(pattern="[ab]+", full=True).judge("abba").score == 1


def test_a_wrong_pattern_is_refused() -> None:
    with pytest.raises(UserError, match="regular expression"):
        Regex(pattern="(")


def test_exponential_backtracking_is_stopped() -> None:
    scorer = Regex(pattern="(a+)+b")
    scorer.judge("b")  # the process starts
    begin = time.monotonic()
    verdict = scorer.judge("a" * 60)
    assert time.monotonic() - begin < 12
    assert verdict.score == 0
    assert "seconds" in verdict.reason
    assert scorer.judge("aab").score == 1  # another process took over


@pytest.mark.parametrize("n", [1, 2, 3])
@given(ids=st.lists(st.integers(0, 4), max_size=30))
@settings(max_examples=30, deadline=None)
def test_repetition_is_one_plus_the_penalty_of_trl(n: int, ids: list[int]) -> None:
    text = " ".join(map(str, ids))
    (penalty,) = get_repetition_penalty_reward(ngram_size=n, max_penalty=-1.0)([ids])
    assert Repetition(n=n).judge(text).score == pytest.approx(1 + penalty)


def test_repetition_by_hand() -> None:
    """A b a b a has the bigrams ab, ba, ab, ba: 2 of 4 are distinct."""
    assert Repetition(n=2).judge("a b a b a").score == 0.5


ENGLISH = "The old man walked slowly down to the river and looked at the water for a long time."
GERMAN = "Der alte Mann ging langsam zum Fluss hinunter und betrachtete lange Zeit das Wasser."


def test_language() -> None:
    (scores,) = Language(language="en").score(["p"], [[ENGLISH, GERMAN, "", "12 34"]])
    assert scores[0] > 0.99
    assert scores[1] < 0.01
    assert scores[2:] == [0, 0]


def test_language_is_told_the_same_way_each_time() -> None:
    """Short mixed text, on which langdetect without a seed changes its mind."""
    assert len({str(detect_languages("hotel taxi no problem")) for _ in range(10)}) == 1


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(UserError, match="zh-cn"):
        Language(language="chinese")


def test_ten_megabytes_take_bounded_time() -> None:
    Language(language="en").judge("the profiles are read")
    begin = time.monotonic()
    assert 0 <= Language(language="en").judge("a" * 10_000_000).score <= 1
    assert time.monotonic() - begin < 1


@given(text=st.text(max_size=200))
@settings(max_examples=50, deadline=None)
def test_scores_are_in_the_unit_interval(text: str) -> None:
    for scorer in (Length(minimum=3, maximum=9), Repetition(), Language(language="en")):
        assert 0 <= scorer.judge(text).score <= 1
