"""Mixing rates by vectors computed by hand, and mixtures that have them from the beginning."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Any

import pytest

from align.curation.mixing import mixing_rates, mixture
from align.errors import UserError

SIZES = {"a": 100_000, "b": 8_000, "c": 500}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (0.921659, 0.073733, 0.004608)),
        ({"cap": 3000}, (0.461538, 0.461538, 0.076923)),
        ({"rates": "temperature", "cap": 3000, "temperature": 2.0}, (0.415240, 0.415240, 0.169521)),
        ({"rates": "temperature", "temperature": 2.0}, (0.738796, 0.208963, 0.052241)),
        ({"rates": "temperature"}, (0.921659, 0.073733, 0.004608)),
        ({"rates": "equal"}, (1 / 3, 1 / 3, 1 / 3)),
    ],
)
def test_rates(settings: dict[str, Any], expected: tuple[float, ...]) -> None:
    found = mixing_rates(SIZES, **settings)
    assert list(found) == ["a", "b", "c"]
    assert tuple(found.values()) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"cap": 0}, "cap=0 must be at least 1"),
        ({"cap": 5, "rates": "equal"}, "cap=5 .* no effect on equal rates"),
        ({"temperature": 2.0}, "temperature=2 .* temperature rates alone"),
        ({"temperature": 0.5, "rates": "temperature"}, r"temperature=0\.5 must be at least 1"),
    ],
)
def test_settings_without_effect_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        mixing_rates(SIZES, **settings)
    with pytest.raises(UserError, match="mix: empty has no rows"):
        mixing_rates({"a": 1, "empty": 0})


def test_every_beginning_has_the_rates() -> None:
    sizes, rates = {"a": 50, "b": 30, "c": 20}, {"a": 0.5, "b": 0.3, "c": 0.2}
    taken: Counter[str] = Counter()
    for n, (name, _) in enumerate(mixture(sizes, rates, 100, seed=0), start=1):
        taken[name] += 1
        assert all(abs(taken[one] - rates[one] * n) < 1 for one in sizes), n
    assert taken == sizes


def test_the_source_that_lags_most_comes_next() -> None:
    """Rates ⅔ and ⅓: a (lags ⅔), b (⅔ against ⅓), a; then the same again."""
    plan = list(mixture({"a": 4, "b": 2}, {"a": 2 / 3, "b": 1 / 3}, 6, seed=0))
    assert [name for name, _ in plan] == list("abaaba")


def test_a_source_comes_whole_before_it_comes_again_in_another_order() -> None:
    plan = [row for _, row in mixture({"a": 20}, {"a": 1.0}, 40, seed=0)]
    assert sorted(plan[:20]) == sorted(plan[20:]) == list(range(20))
    assert plan[:20] != plan[20:] != list(range(20))


def test_the_order_depends_on_the_seed_alone() -> None:
    sizes, rates = {"a": 30, "b": 20}, {"a": 0.6, "b": 0.4}
    first = list(mixture(sizes, rates, 50, seed=1))
    assert first == list(mixture(sizes, rates, 50, seed=1))
    assert first[:10] == list(islice(mixture(sizes, rates, 500, seed=1), 10))
    assert first != list(mixture(sizes, rates, 50, seed=2))
