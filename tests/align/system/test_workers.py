"""Items computed by several processes: results in order, failures in their turn."""

from __future__ import annotations

import gc
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator

import pytest

from align.errors import UserError
from align.system.workers import in_order


@pytest.mark.parametrize(("alone", "processes"), [(0, 1), (0, 2), (3, 2), (9, 2)])
def test_results_come_in_the_order_of_the_items(alone: int, processes: int) -> None:
    found = list(in_order(math.factorial, range(7), alone=alone, processes=processes))
    assert found == [1, 1, 2, 6, 24, 120, 720]


def test_nothing_is_computed_of_nothing() -> None:
    assert list(in_order(math.sqrt, [], alone=0, processes=2)) == []


def test_failures_come_after_the_results_before_them() -> None:
    results = in_order(math.sqrt, [4.0, -1.0, 9.0], alone=0, processes=2)
    assert next(results) == 2
    with pytest.raises(ValueError, match="math domain error"):
        next(results)

    def items() -> Iterator[float]:
        yield 16.0
        raise UserError("the file is damaged")

    results = in_order(math.sqrt, items(), alone=0, processes=2)
    assert next(results) == 4
    with pytest.raises(UserError, match="the file is damaged"):
        next(results)


def test_a_process_that_is_killed_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"ended from outside \(exit code 3\).*memory"):
        list(in_order(os._exit, [3], alone=0, processes=2))


@pytest.mark.parametrize("cut", [0, 5])
def test_a_worker_whose_parent_is_gone_ends_in_silence(cut: int) -> None:
    """Its input ends, between items or in the middle of one."""
    command = [sys.executable, "-c", "from align.system.workers import serve; serve()"]
    given = pickle.dumps(math.sqrt) + pickle.dumps([4.0] * 9)[:cut]
    ended = subprocess.run(command, input=given, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


def test_a_worker_whose_results_nobody_reads_ends_in_silence() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-c", "from align.system.workers import serve; serve()"]
    given = pickle.dumps(math.sqrt) + pickle.dumps(4.0)
    ended = subprocess.run(command, input=given, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_a_worker_does_not_keep_what_an_item_left_in_cycles() -> None:
    kept = list(in_order(_cycles_alive, range(5), alone=0, processes=2))
    assert kept == [1, 1, 1, 1, 1]


class _Cycle:
    def __init__(self) -> None:
        self.itself = self


def _cycles_alive(_: int) -> int:
    left = _Cycle()
    return sum(isinstance(thing, type(left)) for thing in gc.get_objects())
