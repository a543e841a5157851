from __future__ import annotations

import time
from typing import Any

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


@pytest.mark.parametrize(
    ("settings_", "text", "score"),
    [
        ({"minimum": 3}, "a  b\n\tc", 1),  # any white space separates, and how much of it does not count
        ({"minimum": 4}, "a b c", 0.75),
        ({"maximum": 4}, "a b c d e", 0.75),
        ({"maximum": 2}, "a b c d e f", 0),  # never below 0
        ({"minimum": 3, "maximum": 3}, "a b c", 1),
        ({"minimum": 4, "unit": "characters"}, "a b", 0.75),
        ({"maximum": 4}, "", 1),
    ],
)
def test_length_by_hand(settings_: dict[str, Any], text: str, score: float) -> None:
    assert Length(**settings_).judge(text).score == score


def test_settings_that_are_not_given() -> None:
    assert (Length(minimum=1).unit, Length(minimum=1).maximum, Length(maximum=1).minimum) == ("words", None, None)
    assert Repetition().n == 3
    regex = Regex(pattern="a")
    assert (regex.full, regex.thinking_tags, regex.answer_tags) == (False, (), ())
    names = (Length(minimum=1), Regex(pattern="a"), Repetition(), Language(language="en"))
    assert [one.name for one in names] == ["length", "regex", "repetition", "language"]


def test_thinking_is_searched_unless_it_is_left_out() -> None:
    text = "<think>yes</think>no"
    assert Regex(pattern="yes").judge(text).score == 1
    assert Regex(pattern="yes", thinking_tags=("think",)).judge(text).score == 0
    assert Regex(pattern="no", full=True, thinking_tags=("think",)).judge(text).score == 1
    assert Regex(pattern="no.", full=True).judge("no").score == 0
    assert Regex(pattern="n", full=True).judge("no").score == 0


@pytest.mark.parametrize(("n", "text", "score"), [(1, "a a a a", 0.25), (3, "a b", 1), (3, "a b c", 1), (2, "", 1)])
def test_repetition_of_short_texts(n: int, text: str, score: float) -> None:
    assert Repetition(n=n).judge(text).score == score


@pytest.mark.parametrize("n", [0, -1])
def test_repetition_needs_a_word(n: int) -> None:
    with pytest.raises(UserError, match=f"repetition: n={n} must be at least 1"):
        Repetition(n=n)


def test_the_most_probable_language_comes_first_and_only_the_beginning_is_read() -> None:
    assert next(iter(detect_languages(f"{ENGLISH} {ENGLISH} {GERMAN}"))) == "en"
    assert Language(language="de").judge(ENGLISH).score == 0
    beginning = (ENGLISH * 200)[:10_000]
    assert detect_languages(beginning + GERMAN * 1000) == detect_languages(beginning)
    found = list(detect_languages("hotel taxi no problem").values())
    assert found == sorted(found, reverse=True)
    assert all(0 < share <= 1 for share in found)
