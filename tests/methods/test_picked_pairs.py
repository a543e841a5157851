"""The pairs that a pool of scored candidates becomes, and RSO's acceptance against its formula."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import pytest

from align.candidates.plan import Pool
from align.data import Preferences
from methods.picked_pairs import AllPairs, BestWorst, RejectionSampled, accepted

POOL = Pool(
    [{"prompt_id": "p"}], ["low", "best", "middle", "also best", "also low"], [1] * 5, [0.0, 2.0, 1.0, 2.0, 0.0]
)


def sides(rows: Any) -> list[tuple[str, str]]:
    return [(row["chosen"], row["rejected"]) for row in rows]


def test_best_against_worst_by_hand() -> None:
    selected = BestWorst()(POOL)
    assert selected.rows == [
        {"chosen": "best", "rejected": "also low", "chosen_score": 2.0, "rejected_score": 0.0, "weight": 1.0}
    ]
    assert selected.counts == {"paired": 1}


def test_all_pairs_by_hand_together_weigh_one_prompt() -> None:
    selected = AllPairs()(POOL)
    assert set(sides(selected.rows)) == {
        *((best, worse) for best in ("best", "also best") for worse in ("middle", "low", "also low")),
        *(("middle", low) for low in ("low", "also low")),
    }
    assert len(selected.rows) == 8
    assert {row["weight"] for row in selected.rows} == {1 / 8}
    assert all(row["chosen_score"] > row["rejected_score"] for row in selected.rows)


@pytest.mark.parametrize("pick", [BestWorst(), AllPairs(), RejectionSampled(0.5, 2)])
@pytest.mark.parametrize(("scores", "fate"), [([1.0, 1.0, 1.0], "tied"), ([1.0], "single"), ([], "single")])
def test_what_cannot_be_compared_has_no_rows(pick: Any, scores: list[float], fate: str) -> None:
    selected = pick(Pool([{}], [f"text {i}" for i in range(len(scores))], [1] * len(scores), scores))
    assert selected.rows == []
    assert selected.counts[fate] == 1


class Fixed(random.Random):
    """Gives the numbers in turn."""

    def __init__(self, *numbers: float) -> None:
        super().__init__()
        self.numbers = list(numbers)

    def random(self) -> float:
        return self.numbers.pop(0)


@pytest.mark.parametrize(
    ("numbers", "kept"),
    [
        ((0.99, 0.36, 0.99), [0, 1]),  # e^−1 = .367879 accepts the second in the first pass
        ((0.99, 0.37, 0.13), [0, 2]),  # e^−2 = .135335 the third, where the second was refused
        ((0.99, 0.37, 0.14, 0.99), [0, 1]),  # both refused: in the second pass .5 is the highest, and accepted
        ((0.999, 0.999, 0.999, 0.36, 0.1), [0, 1]),
    ],
)
def test_passes_by_hand(numbers: tuple[float, ...], kept: list[int]) -> None:
    """Scores 1, .5 and 0, β .5."""
    assert accepted([1.0, 0.5, 0.0], 2, 0.5, Fixed(*numbers)) == kept


def test_how_often_each_is_accepted() -> None:
    """The page's vector: {1, .5} with e^−1 + (1 − e^−1)(1 − e^−2) = .914452, {1, 0} with (1 − e^−1)·e^−2 = .085548."""
    generator = random.Random(0)
    n = 20_000
    found = Counter(tuple(sorted(accepted([1.0, 0.5, 0.0], 2, 0.5, generator))) for _ in range(n))
    assert set(found) == {(0, 1), (0, 2)}
    assert found[0, 2] / n == pytest.approx(0.085548, abs=4 * math.sqrt(0.0855 * 0.9145 / n))


def probabilities(scores: list[float], count: int, beta: float) -> dict[frozenset[int], float]:
    """Of each accepted set, by enumeration of the outcomes of every pass."""
    done: dict[frozenset[int], float] = {}
    open_: list[tuple[frozenset[int], tuple[int, ...], float]] = [(frozenset(), tuple(range(len(scores))), 1.0)]
    while open_:
        kept, left, weight = open_.pop()
        if len(kept) == count or not left:
            done[kept] = done.get(kept, 0.0) + weight
            continue
        chances = {i: math.exp((scores[i] - max(scores[j] for j in left)) / beta) for i in left}
        outcomes = [(kept, (), weight)]
        for i in left:
            following = []
            for chosen, refused, p in outcomes:
                if len(chosen) == count:
                    following.append((chosen, refused, p))
                    continue
                following += [
                    (chosen | {i}, refused, p * chances[i]),
                    (chosen, (*refused, i), p * (1 - chances[i])),
                ]
            outcomes = following
        open_ += [outcome for outcome in outcomes if outcome[2]]
    return done


def test_the_vector_of_the_page_by_enumeration() -> None:
    exact = probabilities([1.0, 0.5, 0.0], 2, 0.5)
    assert exact == {
        frozenset({0, 1}): pytest.approx(0.914452, abs=5e-7),
        frozenset({0, 2}): pytest.approx(0.085548, abs=5e-7),
    }
    assert math.exp(-1) == pytest.approx(0.367879, abs=5e-7)
    assert math.exp(-2) == pytest.approx(0.135335, abs=5e-7)


def test_frequencies_are_those_of_an_enumeration() -> None:
    scores, n = [0.2, 1.0, 0.7, -0.5, 0.7], 20_000
    exact = probabilities(scores, 3, 0.8)
    assert sum(exact.values()) == pytest.approx(1)
    generator = random.Random(1)
    found = Counter(frozenset(accepted(scores, 3, 0.8, generator)) for _ in range(n))
    assert set(found) <= set(exact)
    for kept, p in exact.items():
        assert found[kept] / n == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / n) + 1e-9)


def test_a_small_beta_accepts_the_best_and_no_more_than_there_are() -> None:
    assert accepted([0.0, 3.0, 1.0, 2.0], 2, 1e-3, random.Random(0)) == [1, 3]
    assert sorted(accepted([0.0, 3.0], 4, 1.0, random.Random(0))) == [0, 1]
    assert accepted([], 4, 1.0, random.Random(0)) == []


def test_pairs_of_what_rso_accepts_are_the_same_for_the_same_seed_and_prompt() -> None:
    texts, scores = [f"text {i}" for i in range(12)], [float(7 * i % 12) for i in range(12)]

    def rows(seed: int, prompt: str) -> Any:
        return RejectionSampled(5.0, 6)(Pool([{"prompt_id": prompt}], texts, [1] * 12, scores, seed))

    first = rows(0, "p")
    assert (len(first.rows), first.counts) == (3, {"paired": 1, "accepted": 6})
    assert len({text for pair in sides(first.rows) for text in pair}) == 6  # each is in one pair
    assert all(row["chosen_score"] > row["rejected_score"] and row["weight"] == 1 / 3 for row in first.rows)
    assert rows(0, "p").rows == first.rows
    assert len({tuple(sides(rows(seed, prompt).rows)) for seed in (0, 1) for prompt in ("p", "q")}) == 4


def test_data_pairs_leaves_picked_pairs_as_they_are() -> None:
    rows = [{"prompt": "Say", "prompt_id": "p", **row} for row in AllPairs()(POOL).rows]
    for rule in ("all", "best_worst", "adjacent"):
        read = Preferences.from_rows(rows, format="pairwise", pairs=rule)
        for pairs in (read.as_pairs(), read.as_pairs(join_answers=False)):
            assert [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in pairs] == sides(rows)
            assert {row["weight"] for row in pairs} == {1 / 8}
