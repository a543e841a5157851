"""SIGKILL of one of two ranks at a random moment: the other leaves too, and what a restart ends with is the same."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.conftest import write_inputs
from tests.faults.programs import Command, run_command
from tests.faults.records import differing, untidy
from tests.forked import started_on_ranks

_LEAVES = 15
"""Seconds within which the other rank must be gone."""
_LIVES = 4
"""Most kills of a run before it is left to end."""


def done_by_both(words: list[str], folder: Path) -> float:
    """Do a run on two ranks; returns the seconds that it took."""
    began = time.monotonic()
    with started_on_ranks(2, run_command, [*words, "if_exists=resume"], folder) as ranks:
        for each in ranks:
            each.finish()
    return time.monotonic() - began


def one_killed(words: list[str], folder: Path, after: float, rank: int) -> float | None:
    """Kill a rank so many seconds after the start; returns how long the other one stayed, None if both had ended.

    torchrun looks at its processes ten times a second, and sends SIGTERM to the others when one has ended.
    """
    with started_on_ranks(2, run_command, [*words, "if_exists=resume"], folder) as ranks:
        killed, other = ranks[rank], ranks[1 - rank]
        killed.process.join(after)
        if killed.ended:
            assert [each.wait(_LEAVES) for each in ranks] == [0, 0], other.said
            return None
        killed.send(signal.SIGKILL)
        began = time.monotonic()
        killed.process.join()
        time.sleep(0.1)
        other.send(signal.SIGTERM)
        other.wait(2 * _LEAVES)
        assert "Traceback" not in other.said
        return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dpo", "ppo", "sharded"])
def test_killed_on_one_of_two_ranks_a_run_ends_as_if_nothing_had_happened(
    method: str, words: Callable[..., list[str]], tmp_path: Path
) -> None:
    typed = words("dpo", "trainer.sharding=full") if method == "sharded" else words(method)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for place in (whole, cut):
        place.mkdir()
        write_inputs(place)
    assert Command(["--help"], whole).start().wait(600) == 0  # what commands are forked from is there
    seconds = done_by_both(typed, whole)
    chance, stayed = random.Random(method), list[float]()
    while len(stayed) < 7:
        name = f"run_name=run{len(stayed)}"
        for _ in range(_LIVES):
            longer = one_killed([*typed, name], cut, chance.random() * seconds, chance.randrange(2))
            if longer is None:
                break
            stayed.append(longer)
        done_by_both([*typed, name], cut)
        place = cut / "runs" / name.partition("=")[2]
        assert differing(whole / "runs" / "run", place) == []
        assert untidy(place) == []
    print(method, "the other rank stayed for", [round(each, 1) for each in stayed], "seconds")
    assert max(stayed) <= _LEAVES
