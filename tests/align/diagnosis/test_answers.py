"""Rules on held-out answers, on both sides of their bounds."""

from __future__ import annotations

import pytest

from align.evaluation.measurement import Measurement
from tests.align.diagnosis.courses import answered, course, different, names

BEFORE = answered(*different(20))


def found(after: Measurement, before: Measurement = BEFORE, **settings: object) -> list[str]:
    """The unhealthy things of a run whose loss is too short to say anything."""
    return names(course({"train/tokens_per_second": [1.0]}, before, after, **settings))  # pyright: ignore


def test_a_healthy_run_and_one_of_few_answers() -> None:
    assert found(answered(*different(20, "other"))) == []
    assert found(answered(*["same"] * 15), answered(*different(15))) == []


@pytest.mark.parametrize(("kl", "said"), [(20.0, False), (20.1, True)])
def test_kl_counts_where_the_method_has_a_tie(kl: float, said: bool) -> None:
    after = answered(*different(20, "other"), kl=kl)
    assert found(after) == (["kl"] if said else [])
    assert found(after, tie=None) == []


@pytest.mark.parametrize(
    ("tokens", "said"), [([15] * 20, False), ([16] * 20, True), ([7] * 20, False), ([6] * 20, True)]
)
def test_length_against_the_start(tokens: list[int], said: bool) -> None:
    """From 10 tokens."""
    assert found(answered(*different(20, "other"), tokens=tokens)) == (["length"] if said else [])


def test_a_drift_within_the_noise_is_none() -> None:
    """Of 20 answers one has 130 tokens: a mean of 16, with an interval that begins below 10."""
    assert found(answered(*different(20, "other"), tokens=[10] * 19 + [130])) == []


@pytest.mark.parametrize(("imitated", "said"), [(30.0, False), (10.0, True), (12.0, True)])
def test_answers_may_come_nearer_to_those_that_are_imitated(imitated: float, said: bool) -> None:
    run = course(
        {"train/tokens_per_response": [imitated] * 3}, BEFORE, answered(*different(20, "other"), tokens=[25] * 20)
    )
    assert names(run) == (["length"] if said else [])


@pytest.mark.parametrize(
    ("cut", "said"), [(10, []), (11, ["cut off"]), (18, ["cut off"]), (19, ["no end"]), (20, ["no end"])]
)
def test_answers_that_reach_the_limit(cut: int, said: list[str]) -> None:
    """Of 20 answers, of 10 tokens or of 14, which is the limit."""
    after = answered(*different(20, "other"), tokens=[14] * cut + [10] * (20 - cut))
    assert found(after, evaluation={"max_new_tokens": 14}) == said
    assert found(after) == []  # the limit is not known


@pytest.mark.parametrize(("before", "after", "said"), [(0, 10, False), (0, 11, True), (8, 12, False), (8, 13, True)])
def test_the_same_answer_to_many_prompts(before: int, after: int, said: bool) -> None:
    """Of 20: more than half, and more than 1.5 times the share at the start."""
    then = answered(*["same"] * before, *different(20 - before))
    now = answered(*["again"] * after, *different(20 - after, "other"))
    assert found(now, then) == (["identical"] if said else [])


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        (" ".join(["no"] * 20), True),  # one pair of 19
        (" ".join(["a b c d e f"] * 4)[:-2], True),  # 23 words: 6 pairs of 22
        (" ".join(["a b c d e f g h"] * 3)[:-2], False),  # 23 words: 8 pairs of 22
        (" ".join(["no"] * 19), False),  # too short
    ],
)
def test_a_loop(text: str, loops: bool) -> None:
    """In 5 of 20 answers; 4 are a fifth, which is not more than a fifth."""
    for number, said in ((5, loops), (4, False)):
        after = answered(*[text] * number, *different(20 - number, "other"))
        assert ("loops" in found(after)) is said
    assert "loops" not in found(answered(*[text] * 5, *different(15)), answered(*[text] * 3, *different(17)))
