"""The soft overlong punishment: by hand, beside TRL's, and on responses of any kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from trl.rewards import get_soft_overlong_punishment

from align.errors import UserError
from align.scoring.from_config import make_scorer
from reward import SoftOverlong
from reward.verifiers.overlong import overlong_penalty


def test_overlong_penalty() -> None:
    """20 tokens at most, the last 8 of them ever dearer."""
    length = torch.tensor([[0, 1, 12, 13, 16, 19, 20, 25]])
    found = overlong_penalty(length, max_tokens=20, buffer=8, penalty=2.0)
    assert found.tolist() == [[0, 0, 0, -0.25, -1, -1.75, -2, -2]]
    assert overlong_penalty(length, max_tokens=20, buffer=8)[0, -1] == -1
    assert overlong_penalty(length, max_tokens=20, buffer=20)[0, 4].item() == pytest.approx(-0.8)


@pytest.mark.parametrize(
    ("response", "characters", "words"),
    # 10 units, 4 of them a buffer: 0 up to 6, then −1/4 for each.
    [
        ("", 0, 0),
        ("a" * 6, 0, 0),
        ("a" * 7, -0.25, 0),
        ("a" * 9, -0.75, 0),
        ("a" * 10, -1, 0),
        ("a" * 1_000_000, -1, 0),
        (" " * 8, -0.5, 0),
        ("a b c d e f g h", -1, -0.5),
        ("a\n\t b", 0, 0),
        ("<think>", -0.25, 0),  # thoughts and tags count
        ("<think></think>", -1, 0),
        ("日本語日本語日本語", -0.75, 0),
        ("e\u0301" * 4, -0.5, 0),
        ("\x00" * 7, -0.25, 0),
        ("\ud800" * 7, -0.25, 0),
        ("👩‍👩‍👧", 0, 0),  # five characters
    ],
)
def test_by_hand(response: str, characters: float, words: float) -> None:
    for unit, score in (("characters", characters), ("words", words)):
        scorer = SoftOverlong(maximum=10, buffer=4, unit=unit)  # pyright: ignore[reportArgumentType]
        assert scorer.score(["p"], [[response]]) == [[score]]


def test_the_buffer_is_a_fifth() -> None:
    scorer = SoftOverlong(maximum=20, unit="characters")
    assert scorer.score(["p", "q"], [["a" * 16, "a" * 18], ["a" * 20]], answer=["x", "y"]) == [[0, -0.5], [-1]]
    assert SoftOverlong(maximum=2, unit="words").score(["p"], [["a", "a b"], []][:1]) == [[0, -1]]
    assert scorer.score(["p"], [[]]) == [[]]


def test_tokens_are_those_of_the_tokenizer(tiny_model: Path) -> None:
    """The tiny tokenizer has one token per byte; beside TRL's function on the same numbers."""
    texts = ["a" * n for n in (0, 5, 6, 7, 9, 10, 11)] + ["é" * 4]
    expected = get_soft_overlong_punishment(max_completion_len=10, soft_punish_cache=4)(
        [[0] * n for n in (0, 5, 6, 7, 9, 10, 11, 8)]
    )
    scorer = SoftOverlong(maximum=10, buffer=4, tokenizer=str(tiny_model))
    assert scorer.score(["p"], [texts]) == [expected]
    assert SoftOverlong(maximum=64, tokenizer="world/base").measure("The lemon is yellow.") < 20


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "maximum is missing; it must be given"),
        ({"maximum": 0, "unit": "words"}, "maximum must be at least 1, not 0"),
        ({"maximum": 1.5, "unit": "words"}, "maximum must be a whole number, not 1.5"),
        ({"maximum": 9}, r"soft_overlong: unit=tokens needs `tokenizer`, the name of the model, or take unit=char"),
        ({"maximum": 9, "unit": "letters"}, "unit must be tokens, words or characters, not 'letters'"),
        ({"maximum": 9, "unit": "words", "buffer": 10}, "soft_overlong: buffer=10 must be at most maximum=9"),
        ({"maximum": 9, "unit": "words", "buffer": 0}, "buffer must be at least 1, not 0"),
        ({"maximum": 9, "unit": "words", "buffer": -1}, "buffer must be at least 1, not -1"),
        ({"maximum": 9, "unit": "words", "penalty": 2}, "penalty is not a setting of SoftOverlong"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_scorer({"scorer": "soft_overlong", **settings})


def test_a_tokenizer_that_is_not_there(tmp_path: Path) -> None:
    for name, reason in ((f"{tmp_path}/none", "there is no such folder"), (str(tmp_path), "no tokenizer could be")):
        with pytest.raises(UserError, match=f"tokenizer={name}: {reason}"):
            SoftOverlong(maximum=9, tokenizer=name).score(["p"], [["a"]])
