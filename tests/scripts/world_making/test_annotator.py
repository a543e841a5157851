from __future__ import annotations

import pytest
from world_making.annotator import Annotator, temperature_for


def test_the_annotator_follows_bradley_and_terry():
    annotator = Annotator(0, temperature=0.1)
    n = 4000
    wins = sum(annotator.rank(["a", "b"], [0.6, 0.5])[0].text == "a" for _ in range(n))
    assert wins / n == pytest.approx(0.731, abs=0.025)  # 1/(1 + e^−1)


def test_ratings_fall_along_a_ranking_and_repeat_by_seed():
    ranking = Annotator(1, 0.1).rank(list("abcde"), [0.5] * 5)
    assert sorted((rated.rating for rated in ranking), reverse=True) == [rated.rating for rated in ranking]
    assert len({rated.rating for rated in ranking}) == 5
    assert ranking == Annotator(1, 0.1).rank(list("abcde"), [0.5] * 5)
    with pytest.raises(ValueError, match="temperature"):
        Annotator(0, temperature=0)


def test_the_temperature_gives_the_wanted_disagreement():
    # One gap g: σ(−g/τ) = .2 at τ = g / ln 4
    assert temperature_for([0.3, -0.3, 0.0], 0.2) == pytest.approx(0.3 / 1.386294, rel=1e-3)
    with pytest.raises(ValueError, match="equal true rewards"):
        temperature_for([0.0])
