"""Settings of sampling: their defaults and the values that they may have."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from align.errors import UserError
from align.sampling.params import Response, SamplingParams


def test_defaults() -> None:
    assert dataclasses.asdict(SamplingParams()) == {
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "max_new_tokens": 128,
        "min_new_tokens": 0,
        "stop_strings": (),
        "diversity_penalty": 0.0,
    }
    assert dataclasses.asdict(Response()) == {"ids": [], "logps": [], "finished": False}


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0},
        {"temperature": 9.0},
        {"top_p": 1e-9},
        {"top_p": 1},
        {"top_k": 1},
        {"max_new_tokens": 1},
        {"max_new_tokens": 3, "min_new_tokens": 3},
        {"stop_strings": ("a", " ")},
        {"temperature": 0, "diversity_penalty": 0.5},
        {"temperature": 0, "diversity_penalty": 0.5, "top_p": 1.0, "top_k": 0},
        {"temperature": 0, "top_k": 3, "top_p": 0.5},
    ],
)
def test_values_that_they_may_have(settings: dict[str, Any]) -> None:
    SamplingParams(**settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": -0.1}, "temperature=-0.1 must be at least 0 and finite"),
        ({"temperature": 1e-40}, "temperature=1e-40 is too small to divide by; take 0, which is greedy"),
        ({"top_p": 0}, "top_p=0 must be above 0 and at most 1"),
        ({"top_p": -0.5}, "top_p=-0.5 must be above 0 and at most 1"),
        ({"top_p": 1.01}, "top_p=1.01 must be above 0 and at most 1"),
        ({"top_k": -1}, "top_k=-1 must be at least 0"),
        ({"max_new_tokens": 0}, "max_new_tokens=0 must be at least 1"),
        ({"min_new_tokens": -1}, "min_new_tokens=-1 must be from 0 to 128"),
        ({"min_new_tokens": 4, "max_new_tokens": 3}, "min_new_tokens=4 must be from 0 to 3"),
        ({"stop_strings": ("a", "")}, "an empty text would end every response at once"),
        ({"temperature": 0, "diversity_penalty": -0.1}, "must be at least 0, and finite"),
        ({"temperature": 0, "diversity_penalty": float("inf")}, "must be at least 0, and finite"),
        ({"temperature": 0.1, "diversity_penalty": 1}, "applies only to diverse beam search"),
        ({"temperature": 0, "top_k": 1, "diversity_penalty": 1}, "applies only to diverse beam search"),
        ({"temperature": 0, "top_p": 0.5, "diversity_penalty": 1}, "applies only to diverse beam search"),
    ],
)
def test_values_that_they_may_not_have(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        SamplingParams(**settings)
