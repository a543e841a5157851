"""Checks that may never end, run in a process that can be killed.

Symbolic mathematics, regular expressions and schemas can take exponential time and memory on text that a model wrote,
and a timeout by signal works only in the main thread and cannot interrupt ``9**9**9``. So ``worker.py`` runs them in a
child process: limited memory, no environment, no import of this package, JSON on its pipes, nothing pickled. The child
stays alive between calls; if a call takes too long, it is killed and the next call starts another.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Literal

from align.errors import UserError
from reward.verdict import Verdict

Kind = Literal["equal", "regex", "schema"]

SECONDS = 5.0  # for one judgement
_START_SECONDS = 120.0  # for the child's imports, on a busy machine
_LONGEST_LINE = 65536  # no answer of the child is longer
_WORKER = Path(__file__).with_name("worker.py")
_KEPT = ("PATH", "LD_LIBRARY_PATH")  # an interpreter may need to start; keys and tokens stay here


def judge(kind: Kind, *arguments: str) -> Verdict:
    """Let the child judge; if it takes too long or dies, the score is 0.

    Raises:
        UserError: The pattern or schema, not the response, is at fault.
    """
    return _child(kind).ask(arguments)


@cache
def _child(kind: Kind) -> _Child:
    child = _Child(kind)
    atexit.register(child.stop)
    return child


class _Child:
    """One worker process, started when first asked."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, arguments: tuple[str, ...]) -> Verdict:
        with self._lock:
            process = self._running()
            assert process.stdin is not None
            deadline = time.monotonic() + SECONDS
            try:
                process.stdin.write(json.dumps(arguments).encode() + b"\n")
                process.stdin.flush()
                score, reason = json.loads(_read_line(process, deadline))
            except TimeoutError:
                self.stop()
                return Verdict(0.0, f"not decided within {SECONDS:g} seconds")
            except (EOFError, BrokenPipeError):
                self.stop()
                return Verdict(0.0, "the judging process died, probably for lack of memory")
            if score is None:
                raise UserError(f"{reason}; correct it.")
            return Verdict(float(score), str(reason))

    def stop(self) -> None:
        """Kill the child, if this process has one."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # unread data is lost with the child
                    pipe.close()

    def _running(self) -> subprocess.Popen[bytes]:
        # After a fork the pipes belong to the parent: two processes must not read the answers of one child.
        if self._process is not None and self._owner == os.getpid():
            return self._process
        self._owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(_WORKER), self._kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={key: os.environ[key] for key in _KEPT if key in os.environ},
        )
        try:
            _read_line(self._process, time.monotonic() + _START_SECONDS)
        except (EOFError, TimeoutError) as error:
            self.stop()
            raise RuntimeError(f"{_WORKER} does not start; run it by hand to see why.") from error
        return self._process


def _read_line(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    line = b""
    while not line.endswith(b"\n"):
        if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError
        part = os.read(descriptor, _LONGEST_LINE)
        if not part or len(line) > _LONGEST_LINE:
            raise EOFError
        line += part
    return line
