"""The tournament of the responses to a prompt, without a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest

from reward.models.tournament import Match, tournament


def by_strength(*strengths: Sequence[int]) -> tuple[Callable[[Sequence[Match]], list[float]], list[list[Match]]]:
    """The larger one wins; the matches of each round are kept."""
    rounds: list[list[Match]] = []

    def compare(matches: Sequence[Match]) -> list[float]:
        rounds.append(list(matches))
        return [0.9 if strengths[p][i] > strengths[p][j] else 0.1 for p, i, j in matches]

    return compare, rounds


class TestTournament:
    @pytest.mark.parametrize("size", range(1, 10))
    def test_one_comparison_fewer_than_responses_finds_the_best(self, size: int) -> None:
        for best in range(size):
            strengths = [(i * 5) % 11 for i in range(size)]
            strengths[best] = 99
            compare, rounds = by_strength(strengths)
            (won,) = tournament([size], compare)
            matches = [match for matches in rounds for match in matches]
            assert len(matches) == size - 1
            assert len(rounds) == math.ceil(math.log2(size))
            assert won[best] == len(rounds)
            assert sorted(won)[-2:].count(len(rounds)) == 1
            for _, i, j in matches:
                winner, loser = (i, j) if strengths[i] > strengths[j] else (j, i)
                assert won[winner] > won[loser]

    def test_worked_out_by_hand(self) -> None:
        # 5 responses: 0-1, 2-3 and 4 goes through; then 4-1 and 3 goes through; then 3-4.
        compare, rounds = by_strength([1, 2, 3, 4, 9])
        assert tournament([5], compare) == [[0, 1, 0, 2, 3]]
        assert rounds == [[(0, 0, 1), (0, 2, 3)], [(0, 4, 1)], [(0, 3, 4)]]

    def test_nobody_goes_through_twice_without_a_comparison(self) -> None:
        for size in range(2, 70):
            compare, rounds = by_strength([(i * 37) % 101 for i in range(size)])
            (won,) = tournament([size], compare)
            met = [sum(i in match[1:] for matches in rounds for match in matches) for i in range(size)]
            lost = [0 if rounds_won == max(won) else 1 for rounds_won in won]
            assert all(won[i] + lost[i] - met[i] in (0, 1) for i in range(size))

    def test_the_matches_of_a_round_are_asked_together(self) -> None:
        compare, rounds = by_strength([2, 1], [1, 2, 3, 4], [7], [], [5, 6, 4])
        # The last three: 4 goes through and meets 6.
        assert tournament([2, 4, 1, 0, 3], compare) == [[1, 0], [0, 1, 0, 2], [0], [], [0, 2, 1]]
        assert [sorted({p for p, _, _ in matches}) for matches in rounds] == [[0, 1, 4], [1, 4]]

    def test_a_draw_is_won_by_the_first(self) -> None:
        assert tournament([4], lambda matches: [0.5] * len(matches)) == [[2, 0, 1, 0]]
