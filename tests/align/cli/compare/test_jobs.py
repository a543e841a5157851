"""Processes of a comparison: recorded, repeated where they failed, ended by a signal."""

from __future__ import annotations

from pathlib import Path

import pytest

from align.cli.compare.jobs import Job, Pool


def job(name: str, program: str, *, repeat: bool = False) -> Job:
    return Job(name, ["-c", program], name, repeat=repeat)


def test_a_job_is_done_once(tmp_path: Path) -> None:
    mark = tmp_path / "count"
    program = f"open({str(mark)!r}, 'a').write('x'); print('out')"
    said: list[str] = []
    pool = Pool(tmp_path / "jobs", 2, said.append)
    first = pool.run([job("a", program)])["a"]
    second = Pool(tmp_path / "jobs", 2, said.append).run([job("a", program)])["a"]
    assert first == second
    assert mark.read_text() == "x"
    assert first["code"] == 0
    assert first["seconds"] > 0
    assert first["peak_bytes"] > 1_000_000
    assert pool.log("a").read_text() == "out\n"
    assert len(said) == 1
    pool.run([job("a", program, repeat=True)])
    assert mark.read_text() == "xx"


def test_a_failed_job_loses_nothing_of_the_others_and_is_done_again(tmp_path: Path) -> None:
    said: list[str] = []
    pool = Pool(tmp_path / "jobs", 1, said.append)
    bad = "import sys; print('Error: no such thing.'); sys.exit(2)"
    records = pool.run([job("bad", bad), job("good", "")])
    assert (records["bad"]["code"], records["good"]["code"]) == (2, 0)
    assert pool.record("bad") is None
    assert pool.record("good") is not None
    assert "bad failed (no such thing.)" in said[0]
    again = pool.run([job("bad", "")])["bad"]
    assert again["code"] == 0
    assert again["seconds"] > records["bad"]["seconds"]  # the time of both


def test_a_killed_process_is_named(tmp_path: Path) -> None:
    said: list[str] = []
    Pool(tmp_path / "jobs", 1, said.append).run([job("a", "import os; os.kill(os.getpid(), 9)")])
    assert "signal 9, as by a lack of memory" in said[0]


def test_a_job_that_was_interrupted_stops_the_others_and_is_done_again(tmp_path: Path) -> None:
    """Exit code 130 is that of a run which wrote its checkpoint after Ctrl-C; it is not one that failed."""
    said: list[str] = []
    pool = Pool(tmp_path / "jobs", 1, said.append)
    with pytest.raises(KeyboardInterrupt):
        pool.run([job("a", "import sys; sys.exit(130)"), job("b", "")])
    assert pool.record("a") is None
    assert "failed" not in " ".join(said)
    assert pool.run([job("a", "")])["a"]["code"] == 0
