"""Turns: which passages every rank makes, and in which order, whatever each of them has to do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from typing_extensions import override

from align.system.turns import Seat, Turn, Turns

F, R, B, W = Turn.FORWARD, Turn.RECORDED, Turn.BACKWARD, Turn.WHOLE


class Model:
    """Notes the passages of one rank: ``+`` those that it computes, ``-`` those that it follows."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def follow(self, turn: Turn) -> None:
        self.seen.append(f"-{turn.name[0]}")

    def drop(self) -> None:
        """It keeps no passes."""


class Meeting:
    """Ranks that are threads, and the least of what they say."""

    def __init__(self, ranks: int) -> None:
        self.said: list[int] = []
        self.least = 0
        self.barrier = threading.Barrier(ranks, action=self._decide, timeout=10)
        self.lock = threading.Lock()

    def agreed(self, want: int) -> int:
        with self.lock:
            self.said.append(want)
        self.barrier.wait()
        least = self.least
        self.barrier.wait()
        return least

    def _decide(self) -> None:
        if self.said:
            self.least, self.said = min(self.said), []


class Rank(Turns):
    def __init__(self, meeting: Meeting) -> None:
        super().__init__()
        self.model, self.meeting, self._group = Model(), meeting, object()
        self.seat = Seat(0, self.model)
        self._seats.append(self.seat)

    @override
    def _agreed(self, want: int) -> int:
        return self.meeting.agreed(want)

    def do(self, *passages: Turn) -> list[str]:
        for turn in passages:
            with self.take(self.seat, turn):
                # A backward pass goes through every recorded pass of this rank.
                self.model.seen += [f"+{turn.name[0]}"] * (self.seat.own if turn is B else 1)
        self.wait()
        return self.model.seen


def met(*work: Callable[[Rank], list[str]]) -> list[list[str]]:
    meeting = Meeting(len(work))
    with ThreadPoolExecutor(len(work)) as pool:
        futures = [pool.submit(do, Rank(meeting)) for do in work]
        return [future.result(timeout=20) for future in futures]


def test_ranks_with_equal_work_follow_nobody() -> None:
    assert met(*[lambda rank: rank.do(F, F, R, B)] * 3) == [["+F", "+F", "+R", "+B"]] * 3


def test_a_rank_with_less_or_no_work_follows() -> None:
    more, less, none = met(lambda r: r.do(F, F, R, B, R, B), lambda r: r.do(F, R, B), lambda r: r.do())
    assert more == ["+F", "+F", "+R", "+B", "+R", "+B"]
    assert none == ["-F", "-F", "-R", "-B", "-R", "-B"]
    assert [passage[1] for passage in less] == [passage[1] for passage in more]
    assert sorted(passage for passage in less if passage[0] == "+") == ["+B", "+F", "+R"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((R, R, B), (R, B)),  # two passes in one loss, one on the other rank
        ((R, F, B), (F, F, F)),
        ((W, F), (R, B, R, B)),
        ((R, B, W), (F, W, R, B)),
    ],
)
def test_passages_are_the_same_whatever_each_rank_wants(one: tuple[Turn, ...], other: tuple[Turn, ...]) -> None:
    first, second = met(lambda r: r.do(*one), lambda r: r.do(*other))
    assert [passage[1] for passage in first] == [passage[1] for passage in second]
    for passages, wanted in ((first, one), (second, other)):
        own = [passage[1] for passage in passages if passage[0] == "+"]
        # A backward pass stands as often as passes were recorded.
        assert [p for p in own if p != "B"] == [turn.name[0] for turn in wanted if turn is not B]
        assert own.count("B") == own.count("R")


def test_what_a_failure_left_recorded_is_followed_as_the_others_go_on() -> None:
    """One rank fails between its forward and backward pass; the other ranks' passes need it all the same."""

    def fail(rank: Rank) -> list[str]:
        with rank.take(rank.seat, R):
            rank.model.seen.append("+R")
        rank.wait()  # where it tells of its error
        return rank.model.seen

    failed, fine = met(fail, lambda rank: rank.do(R, B, R, B))
    assert failed == ["+R", "-B", "-R", "-B"]
    assert fine == ["+R", "+B", "+R", "+B"]


def test_a_passage_that_fails_half_way_breaks_the_turns() -> None:
    rank = Rank(Meeting(1))
    with pytest.raises(MemoryError), rank.take(rank.seat, F):
        raise MemoryError
    assert rank.broken


def test_without_a_sharded_model_nobody_is_asked() -> None:
    Turns().wait()
