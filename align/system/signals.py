"""SIGINT and SIGTERM ask for a stop: of one process between two layers of its model, of several at the next step.

A second one stops at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any


class Interrupted(Exception):
    """A signal stopped the training; a checkpoint holds everything up to the last step."""

    def __init__(self, signum: int, checkpoint: Path | None, run_name: str | None = None) -> None:
        self.signum = signum
        self.exit_code = 128 + signum
        """The exit code that shells use for this signal: 130 after Ctrl-C, 143 after SIGTERM."""
        self.checkpoint = checkpoint
        self.run_name = run_name
        """By which the run is resumed: it may have another name than the one asked for."""

    def __str__(self) -> str:
        where = f"; checkpoint {self.checkpoint}" if self.checkpoint else ""
        name = f"run_name={self.run_name} " if self.run_name else ""
        return f"stopped by {signal.Signals(self.signum).name}{where}; continue with {name}if_exists=resume"


_listening: list[StopRequest] = []
_late: list[int] = []
"""Signals that asked for a stop when what listened had nothing left to stop."""


def stop_if_alone() -> None:
    """Answer a signal where what is begun can be done again; of several processes each answers it at its next step.

    So does a thread of an engine, whose failures are not those of the run.

    Raises:
        Interrupted: A signal asked for it.
    """
    if not _listening or not _listening[-1].signum:  # asked before every layer
        return
    if os.environ.get("WORLD_SIZE", "1") == "1" and threading.current_thread() is threading.main_thread():
        raise Interrupted(_listening[-1].signum, None)


def late_signal() -> int:
    """Return the signal that came while a run was about to end, before another one begins; 0: none did."""
    caught = max(_late, default=0)
    _late.clear()
    return caught


def keep_interrupts() -> None:
    """Raise a `KeyboardInterrupt` again that came where Python drops exceptions, such as inside a ``__del__``."""
    others = sys.unraisablehook

    def hook(dropped: Any) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            others(dropped)
            return
        signum = dropped.exc_value.args[0] if dropped.exc_value and dropped.exc_value.args else signal.SIGINT
        again = threading.Timer(0.01, os.kill, (os.getpid(), signum))  # when this call, itself dropped, is over
        again.daemon = True
        again.start()

    sys.unraisablehook = hook


def outlast_sigterm() -> None:
    """Ignore SIGTERM in this process, which leaves by itself and has yet to say why.

    torchrun sends it to all processes a tenth of a second after it has seen one of them end.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


class StopRequest:
    """A request to stop, made by a signal."""

    def __init__(self) -> None:
        self.signum: int = 0

    @contextmanager
    def listening(self) -> Generator[StopRequest]:
        """Catch SIGINT and SIGTERM inside the block, then restore the previous handlers."""
        before: dict[int, Any] = {}
        try:
            for signum in (signal.SIGINT, signal.SIGTERM):
                before[signum] = signal.signal(signum, self._on_signal)
        except ValueError:
            pass  # not in the main thread (a notebook's worker): the handlers stay as they are
        _listening.append(self)
        try:
            yield self
            if self.signum:
                _late.append(self.signum)
        finally:
            _listening.remove(self)
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def _on_signal(self, signum: int, _frame: FrameType | None) -> None:
        if self.signum:  # the second signal stops at once; the last checkpoint stays valid
            raise KeyboardInterrupt(signum)
        self.signum = signum
