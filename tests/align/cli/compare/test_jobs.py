"""Processes of a comparison: recorded, repeated where they failed, ended by a signal."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from align.cli.compare.jobs import Job, Pool, do_tasks, reason_of_task
from align.errors import UserError
from align.system.files import read_json, write_json


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


def test_a_job_whose_work_is_gone_is_done_again(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made_by = Job("a", ["-c", f"open({str(made)!r}, 'a').write('x')"], "a", leaves=made)
    pool = Pool(tmp_path / "jobs", 1, lambda _: None)
    pool.run([made_by])
    pool.run([made_by])
    assert made.read_text() == "x"
    made.unlink()
    pool.run([made_by])
    assert made.read_text() == "x"


def test_a_failed_job_loses_nothing_of_the_others_and_is_done_again(tmp_path: Path) -> None:
    said: list[str] = []
    pool = Pool(tmp_path / "jobs", 1, said.append)
    bad = "import sys; print('Error: no such thing; continue with run_name=a if_exists=resume.'); sys.exit(2)"
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


_PARENT = """
import signal, sys
from pathlib import Path
from align.cli.compare.jobs import Job, Pool
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as where nohup did not start the tests
folder = Path(sys.argv[1])
program = '''
import pathlib, signal, sys, time
def stop(signum, frame):
    open({mark!r}, "a").write(f"{signum} ")
    sys.exit(128 + signum)
for signum in (2, 15):
    signal.signal(signum, stop)
pathlib.Path({mark!r}).touch()
time.sleep(60)
'''
jobs = [Job(n, ["-c", program.replace("{mark!r}", repr(str(folder / n)))], n) for n in ("a", "b", "c")]
try:
    Pool(folder / "jobs", 2, print).run(jobs)
except KeyboardInterrupt:
    print("stopped")
"""


@pytest.fixture
def parent(tmp_path: Path) -> subprocess.Popen[str]:
    """A process with two jobs at work and a third that waits."""
    process = subprocess.Popen([sys.executable, "-c", _PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    _wait_for(lambda: (tmp_path / "a").exists() and (tmp_path / "b").exists())
    return process


def _wait_for(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize(("sent", "received"), [(signal.SIGINT, "2 "), (signal.SIGTERM, "15 "), (signal.SIGHUP, "15 ")])
def test_a_signal_to_the_one_that_waits_is_passed_on(
    sent: signal.Signals, received: str, parent: subprocess.Popen[str], tmp_path: Path
) -> None:
    parent.send_signal(sent)
    assert parent.communicate(timeout=30)[0] == "stopped\n"
    assert [(tmp_path / name).read_text() for name in "ab"] == [received, received]
    assert not (tmp_path / "c").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has ended")
def test_jobs_end_with_a_parent_that_is_killed(parent: subprocess.Popen[str], tmp_path: Path) -> None:
    parent.kill()
    parent.wait()
    assert parent.stdout is not None
    parent.stdout.close()
    _wait_for(lambda: [(tmp_path / name).read_text() for name in "ab"] == ["15 ", "15 "])
    pool = Pool(tmp_path / "jobs", 1, print)
    _wait_for(lambda: not [file for file in Path("/proc").glob("[0-9]*") if f"{tmp_path}/" in _command(file)])
    assert pool.run([job("a", "")])["a"]["code"] == 0


def test_a_record_of_another_command_does_not_count(tmp_path: Path) -> None:
    pool = Pool(tmp_path / "jobs", 1, print)
    pool.run([job("a", f"open({str(tmp_path / 'first')!r}, 'w')")])
    pool.run([job("a", f"open({str(tmp_path / 'second')!r}, 'w')")])
    assert (tmp_path / "second").exists()


def test_a_task_that_fails_says_why_until_it_is_done(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    write_json(tmp_path / "tasks.json", [{"title": "a", "out": str(out), "identity": "i"}])

    def fail(_: object) -> dict[str, object]:
        raise UserError("no such thing.")

    assert do_tasks(tmp_path / "tasks.json", fail) == 1
    assert reason_of_task(out) == "no such thing."
    assert do_tasks(tmp_path / "tasks.json", lambda _: {"score": 1}) == 0
    assert reason_of_task(out) is None
    assert read_json(out) == {"score": 1, "identity": "i"}


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_text()
    except OSError:  # ended
        return ""
