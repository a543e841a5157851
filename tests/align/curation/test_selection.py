"""Selections: the best of each cluster in turn, each prompt once, and no source beyond its limit."""

from __future__ import annotations

import pytest

from align.curation import selection
from align.curation.selection import select
from align.data import Preferences
from align.errors import UserError


def data(*rows: tuple[str, str]) -> Preferences:
    """Return demonstrations of (prompt, source)."""
    return Preferences.from_rows([{"prompt": prompt, "chosen": "a", "source": source} for prompt, source in rows])


@pytest.fixture
def by_first_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clusters known beforehand: x 0, y 1, z 2."""
    monkeypatch.setattr(selection, "_clusters", lambda texts, *_: ["xyz".index(text[0]) for text in texts])


@pytest.mark.usefixtures("by_first_letter")
class TestByHand:
    ROWS = (("x1", "s"), ("x2", "s"), ("x3", "s"), ("y1", "t"), ("y2", "s"), ("z1", "t"))
    QUALITY = (9.0, 8.0, 7.0, 3.0, 6.0, 1.0)

    def test_the_best_of_each_cluster_in_turn(self) -> None:
        """x has the best row, then y (6), then z; the second turn takes the next of x and y."""
        found = select(data(*self.ROWS), 5, self.QUALITY)
        assert list(found.rows) == [0, 4, 5, 1, 3]
        assert (found.clusters, found.sources, found.capped) == ({0: 2, 1: 2, 2: 1}, {"s": 3, "t": 2}, 0)
        assert found.quality == pytest.approx((34 / 6, (9 + 6 + 1 + 8 + 3) / 5))

    def test_a_full_source_is_passed_over(self) -> None:
        """s has room for row 0 alone; of y then row 3 is taken, though row 4 is better."""
        found = select(data(*self.ROWS), 3, self.QUALITY, per_source=2)
        assert (list(found.rows), found.capped) == ([0, 4, 5], 0)
        with pytest.raises(UserError, match=r"only 2 rows .*; lower --rows=3 or raise --per-source=1\."):
            select(data(*self.ROWS), 3, self.QUALITY, per_source=1)
        found = select(data(*self.ROWS), 2, self.QUALITY, per_source=1)
        assert (list(found.rows), found.sources, found.capped) == ([0, 3], {"s": 1, "t": 1}, 1)

    def test_a_prompt_is_taken_once(self) -> None:
        rows = data(("x1", "s"), ("x1", "t"), ("x2", "s"))
        assert list(select(rows, 2, (1.0, 3.0, 2.0)).rows) == [1, 2]
        with pytest.raises(
            UserError, match=r"only 2 rows have prompts that differ and sources with room; lower --rows=3\."
        ):
            select(rows, 3, (1.0, 3.0, 2.0))


@pytest.mark.parametrize("n", [0, 3])
def test_the_number_is_within_the_data(n: int) -> None:
    with pytest.raises(UserError, match=rf"--rows={n} of 2 rows; give a number from 1 to 2"):
        select(data(("x", "s"), ("y", "s")), n, (1.0, 2.0))


def test_clusters_are_of_like_prompts() -> None:
    """Two kinds of prompts that share no letters: the four chosen are two of each, though one kind is better."""
    prompts = [f"aaaa bbbb {'a' * n}" for n in range(1, 9)] + [f"xxxx yyyy {'x' * n}" for n in range(1, 9)]
    rows, quality = data(*((prompt, "s") for prompt in prompts)), [10.0] * 8 + [1.0] * 8
    found = select(rows, 4, quality, seed=3)
    assert sorted(row // 8 for row in found.rows) == [0, 0, 1, 1]
    assert found == select(rows, 4, quality, seed=3)
