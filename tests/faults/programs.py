"""The command in a process of its own, forked from one that has imported everything.

It is a process like any other, to be killed, limited and signalled, that need not import for ten seconds first.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Command:
    """``run.py`` with these words in a folder."""

    words: Sequence[str]
    folder: Path
    prepare: Callable[[], Any] | None = None
    """Called first in its process: sets limits, or lays a trap."""
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    charts: bool = False
    """Draw curves too, which takes two thirds of a short run."""

    def __post_init__(self) -> None:
        self._said = bytearray()
        self._reader, self._writer = _context().Pipe(duplex=False)
        self._reading = threading.Thread(target=self._read, daemon=True)

    def _read(self) -> None:
        while data := os.read(self._reader.fileno(), 2**16):
            self._said += data

    def start(self) -> Command:
        self.process.start()
        self._writer.close()
        self._reading.start()
        return self

    @cached_property
    def process(self) -> Any:
        given = (list(self.words), self.folder, self._writer, self.prepare, dict(self.environment), self.charts)
        return _context().Process(target=_run, args=given, daemon=True)

    @property
    def said(self) -> str:
        """Its output on stdout and stderr: through a pipe, since files may be what it cannot write."""
        if self.ended:
            self._reading.join(5)
        return bytes(self._said).decode(errors="replace")

    @property
    def ended(self) -> bool:
        return self.process.exitcode is not None

    def wait(self, seconds: float = 300) -> int:
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

    def wait_until(self, ready: Callable[[], bool], seconds: float = 300) -> None:
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
    words: list[str],
    folder: Path,
    output: Any,
    prepare: Callable[[], Any] | None,
    environment: Mapping[str, str],
    charts: bool,
) -> None:
    from align.cli.main import main

    os.environ.update(environment)
    os.chdir(folder)
    for descriptor in (1, 2):
        os.dup2(output.fileno(), descriptor)
    output.close()
    sys.argv = [str(ROOT / "scripts" / "run.py"), *words]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # multiprocessing has it ignored in its server
    if not charts:
        _leave_out_charts()
    if prepare is not None:
        prepare()
    raise SystemExit(main(words, ROOT / "configs"))


def _leave_out_charts() -> None:
    import align.reporting.page as page
    import align.training.monitor as monitor

    monitor.report.plot_curves = lambda _: None
    page.curves_of = page.bars_of = lambda _: []
