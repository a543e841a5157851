"""The command in a process of its own, forked from one that has imported everything.

It is a process like any other, to be killed, limited and signalled, that need not import for ten seconds first.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Command:
    """``run.py`` with these words in a folder."""

    words: Sequence[str]
    folder: Path
    prepare: Callable[[], Any] | None = None
    """Called first in its process: sets limits, or lays a trap."""
    environment: Mapping[str, str] = field(default_factory=dict[str, str])

    def start(self) -> Command:
        self.process.start()
        return self

    @cached_property
    def process(self) -> Any:
        self.log.unlink(missing_ok=True)
        arguments = (list(self.words), self.folder, self.log, self.prepare, dict(self.environment))
        return _context().Process(target=_run, args=arguments, daemon=True)

    @property
    def log(self) -> Path:
        return self.folder / "said.txt"

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    @property
    def ended(self) -> bool:
        return self.process.exitcode is not None

    def wait(self, seconds: float = 120) -> int:
        """Its exit code; of a signal that killed it the negative number."""
        self.process.join(seconds)
        if not self.ended:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"it did not end within {seconds:g} s:\n{self.said[-3000:]}")
        return int(self.process.exitcode)

    def send(self, signum: int) -> None:
        if not self.ended:
            os.kill(self.process.pid, signum)

    def wait_until(self, ready: Callable[[], bool], seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            assert not self.ended, f"it ended before:\n{self.said[-3000:]}"
            assert time.monotonic() < deadline, f"nothing happened:\n{self.said[-3000:]}"
            time.sleep(0.002)


def _context() -> Any:
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.preloaded"])
    return context


def _run(
    words: list[str], folder: Path, log: Path, prepare: Callable[[], Any] | None, environment: Mapping[str, str]
) -> None:
    from align.cli.main import main

    os.environ.update(environment)
    os.chdir(folder)
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(stream, descriptor)
    sys.argv = [str(ROOT / "scripts" / "run.py"), *words]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # multiprocessing has it ignored in its server
    if prepare is not None:
        prepare()
    raise SystemExit(main(words, ROOT / "configs"))
