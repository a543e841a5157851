"""Answers to comparisons whose truth is known."""

from __future__ import annotations

from align.comparison.answer import answer
from align.comparison.results import Cost, Measured, Results, results
from tests.align.comparison.conftest import made


def test_a_clear_winner_is_named_with_what_it_costs(clear: Results) -> None:
    first, *others = answer(clear, start="start")
    assert first == "Take b: it is better than every other method on these 120 prompts and 3 seeds."
    assert any(s.startswith("Where time matters: a took 60 s instead of 600 s") for s in others)
    assert any(s.startswith("Where memory matters: a took 1.00 GiB instead of 4.00 GiB") for s in others)
    assert "Worse than the start model: c." in others


def test_equals_are_named_together_with_the_cheapest() -> None:
    found = made({"a": 0.5, "b": 0.5, "c": 0.1}, a=Cost(10, 2**30, 1, 0, 1), b=Cost(20, 2**29, 1, 0, 1))
    first, *others = answer(found, start="start")
    assert "cannot be told apart" in first
    assert "c" not in first.split(" on these")[0].replace("cannot", "").split()
    assert "Of these, a took the least time (10 s)." in others
    assert "Of these, b took the least memory (0.50 GiB)." in others
    assert any(" differ by " in sentence for sentence in others)


def test_no_method_better_than_the_start_is_said() -> None:
    first, *others = answer(made({"a": 0.0, "b": 0.0}), start="start")
    assert first == "No method is shown to be better than the start model on these 120 prompts and 3 seeds."
    assert not any(sentence.startswith("Of these") for sentence in others)


def test_two_seeds_do_not_say_what_would_decide() -> None:
    scores = {"start": [[0.0, 0.0], [0.0, 0.0]], "a": [[1.0, 1.0], [-0.9, -0.9]]}
    found = results(
        {label: {seed: _one(of[seed]) for seed in (0, 1)} for label, of in scores.items()},
        {},
        start="start",
        max_new_tokens=9,
    )
    *_, last = answer(found, start="start")
    assert last.startswith("a and start differ by 0.050 [")
    assert last.endswith("]; 2 seeds are too few to say what would decide.")


def _one(scores: list[float]) -> Measured:
    return Measured(scores, [1.0] * len(scores), None, [], [], None, None)
