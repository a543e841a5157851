"""Runs the jobs of a comparison, several at a time, each in a process of its own with its time and memory measured."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from align.errors import ScorerError, UserError, first_line
from align.system.children import ends_with_parent
from align.system.files import held, read_json, write_json, write_text
from align.system.workers import core_count

__all__ = ["Job", "Pool", "do_tasks", "reason_of_task"]

_INTERRUPTED = (130, 143)
_KIB = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Job:
    """A command whose end is recorded, so that it is done once."""

    name: str
    """Of its record and its log."""
    command: Sequence[str]
    """Words after the interpreter."""
    title: str
    """For the user."""
    repeat: bool = False
    """It sees for itself what is done already."""
    leaves: Path | None = None
    """The folder that it makes; where that is gone, the job is not done."""


class Pool:
    """Does jobs. A signal is passed on to the processes at work, which write what they must, and no other begins."""

    def __init__(self, folder: Path, workers: int, say: Callable[[str], None]) -> None:
        self.folder, self.workers, self.say = folder, workers, say
        self._stopping = False
        self._at_work: set[int] = set()
        self._changing = threading.RLock()  # a second signal can come while the first is passed on
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder} cannot be created ({error.strerror}); choose another place.") from error

    def run(self, jobs: Sequence[Job]) -> dict[str, dict[str, Any]]:
        """Do the jobs that are not done yet; returns the record of each: ``code``, ``seconds``, ``peak_bytes``.

        Raises:
            KeyboardInterrupt: SIGINT, SIGTERM or SIGHUP, after the processes at work have ended.
            UserError: Another process does jobs of this folder, or those it began have outlived it.
        """
        with (
            held(self.folder, "wait for the end, or stop it") as lock,
            self._passing_on(),
            ThreadPoolExecutor(max_workers=self.workers) as threads,
        ):
            futures = {job.name: threads.submit(self._do, job, lock) for job in jobs}
            records = {name: future.result() for name, future in futures.items()}
        if self._stopping or any(record["code"] in _INTERRUPTED for record in records.values()):
            raise KeyboardInterrupt
        return records

    def shared_out(self, name: str, tasks: Sequence[Mapping[str, Any]], command: Sequence[str]) -> list[Job]:
        """Share tasks among the workers: a job for each, whose command ends with the file of its tasks."""
        size = max(1, math.ceil(len(tasks) / self.workers))
        jobs: list[Job] = []
        for number, first in enumerate(range(0, len(tasks), size)):
            share = tasks[first : first + size]
            file = self.folder / f"{name}-{number}.tasks.json"
            write_json(file, share)
            title = f"{len(share)} model" + "s" * (len(share) > 1)
            jobs.append(Job(f"{name}-{number}", [*command, str(file)], title, repeat=True))
        return jobs

    def record(self, name: str) -> dict[str, Any] | None:
        """Return what is recorded of a job that ended well."""
        found = read_json(self.folder / f"{name}.json")
        return found if found is not None and found["code"] == 0 else None

    def reason(self, name: str) -> str:
        """Return why a job failed; nothing where it did not, or was never begun."""
        found = read_json(self.folder / f"{name}.json")
        return _reason(self.log(name), found["code"]) if found is not None and found["code"] else ""

    def log(self, name: str) -> Path:
        """The file with what a job printed."""
        return self.folder / f"{name}.log"

    @contextmanager
    def _passing_on(self) -> Generator[None]:
        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():  # the only one that may ask for signals
            heeded = [signal.SIGINT, signal.SIGTERM]
            if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
                heeded.append(signal.SIGHUP)
            before = {signum: signal.signal(signum, self._on_signal) for signum in heeded}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def _on_signal(self, signum: int, _frame: FrameType | None) -> None:
        with self._changing:
            self._stopping = True
            for process in self._at_work:
                os.kill(process, signal.SIGTERM if signum == signal.SIGHUP else signum)

    def _do(self, job: Job, lock: int) -> dict[str, Any]:
        done = self.record(job.name)
        gone = job.leaves is not None and not job.leaves.exists()
        command = list(map(str, job.command))
        others = done is not None and done.get("command", command) != command
        if done is not None and not job.repeat and not gone and not others:
            return done
        earlier = read_json(self.folder / f"{job.name}.json") or {"seconds": 0.0, "peak_bytes": 0}
        began = time.perf_counter()
        with self.log(job.name).open("a", encoding="utf-8") as log:
            with self._changing:
                if self._stopping:
                    return {"code": _INTERRUPTED[0], "seconds": 0.0, "peak_bytes": 0}
                process = subprocess.Popen(
                    [sys.executable, *job.command],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._environment(),
                    pass_fds=[lock],  # held as long as one of them lives
                    process_group=0,  # a terminal's Ctrl-C reaches them once, from here
                    preexec_fn=ends_with_parent(),
                )
                self._at_work.add(process.pid)
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            with self._changing:  # its number is not free for another process before this
                self._at_work.discard(process.pid)
                _, status, usage = os.wait4(process.pid, 0)
            process.returncode = code = os.waitstatus_to_exitcode(status)
        record: dict[str, Any] = {
            "command": command,
            "code": code,
            "seconds": earlier["seconds"] + time.perf_counter() - began,
            "peak_bytes": max(earlier["peak_bytes"], usage.ru_maxrss * _KIB),
        }
        write_json(self.folder / f"{job.name}.json", record)
        ended = f"{record['seconds']:,.0f} s, {record['peak_bytes'] / 2**30:.2f} GiB"
        if code == 0:
            self.say(f"  {job.title}: {ended}")
        elif code not in _INTERRUPTED and not self._stopping:
            self.say(
                f"  {job.title} failed ({_reason(self.log(job.name), code)}); all it printed: {self.log(job.name)}"
            )
        return record

    def _environment(self) -> Mapping[str, str]:
        """Share the processor's cores among the workers."""
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, core_count() // self.workers))
        return {**os.environ, "OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}


def do_tasks(file: Path, do: Callable[[dict[str, Any]], dict[str, Any]]) -> int:
    """Do the tasks of a file, each to its ``out``; one that fails loses nothing of the others. Returns an exit code.

    Beside what ``do`` returns, ``out`` has the ``identity`` of the task, all that its result depends on.
    """
    failed = 0
    for task in read_json(file):
        try:
            write_json(Path(task["out"]), {**do(task), "identity": task["identity"]})
            _failure(task["out"]).unlink(missing_ok=True)
            print(f"{task['title']}: measured", flush=True)
        except (UserError, ScorerError) as error:
            print(f"{task['title']}", f"Error: {error}", sep="\n", flush=True)
            write_text(_failure(task["out"]), str(error))
            failed += 1
        except Exception as error:  # shown here, and the others are measured
            print(f"{task['title']} failed:", traceback.format_exc(), sep="\n", flush=True)
            write_text(_failure(task["out"]), f"{type(error).__name__}: {first_line(error)}")
            failed += 1
    return 1 if failed else 0


def reason_of_task(out: Path) -> str | None:
    """Return why the task that should have written a file failed; None where it did not."""
    file = _failure(out)
    return file.read_text(encoding="utf-8") if file.exists() else None


def _failure(out: str | Path) -> Path:
    return Path(out).with_suffix(".failed")


def _reason(log: Path, code: int) -> str:
    """Return the sentence with which a process ended."""
    if code < 0:
        return f"ended by signal {-code}" + (", as by a lack of memory" if code == -9 else "")
    errors = [
        line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.startswith("Error: ")
    ]
    return _REMEDY.sub("", errors[-1].removeprefix("Error: ")) if errors else f"exit code {code}"


_REMEDY = re.compile(r"(;|\.)? [Cc]ontinue with [^;]*if_exists=resume")  # which the comparison does itself
