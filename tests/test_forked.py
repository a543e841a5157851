"""Ranks of the tests: a failure is that of the rank that failed, and none is left behind."""

from __future__ import annotations

import atexit
import os
import time
from pathlib import Path

import pytest

from tests.forked import Forked, on_ranks


def fail_on_the_second(folder: Path) -> None:
    (folder / os.environ["RANK"]).write_text(str(os.getpid()))
    if os.environ["RANK"] == "1":
        raise ValueError("mine")
    time.sleep(100)


def write_at_the_end(file: Path) -> None:
    atexit.register(file.write_text, "ended")
    print("said")
    raise SystemExit(3)


def test_the_rank_that_failed_is_shown_and_the_others_are_ended(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"rank 1 ended with exit code 1:[\s\S]*ValueError: mine"):
        on_ranks(2, fail_on_the_second, tmp_path)
    for file in tmp_path.iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.read_text()), 0)


def test_ranks_that_do_not_end_are_ended() -> None:
    with pytest.raises(AssertionError, match=r"ranks \[0, 1\] did not end within 0\.2 s"):
        on_ranks(2, time.sleep, 100, seconds=0.2)


def test_a_process_ends_as_any_other_does(tmp_path: Path) -> None:
    process = Forked(write_at_the_end, tmp_path / "file").start()
    assert process.wait() == 3
    assert process.said == "said\n"
    assert (tmp_path / "file").read_text() == "ended"
