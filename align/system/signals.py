"""SIGINT and SIGTERM ask for a stop at the next step boundary; a second one stops at once."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any


class Interrupted(Exception):
    """Training stopped because a signal asked for it; everything up to the last step is in a checkpoint."""

    def __init__(self, signum: int, checkpoint: Path | None) -> None:
        self.signum = signum
        self.exit_code = 128 + signum
        """What a shell expects of a process stopped by this signal: 130 after Ctrl-C, 143 after SIGTERM."""
        self.checkpoint = checkpoint
        where = f"; checkpoint {checkpoint}" if checkpoint else ""
        super().__init__(f"stopped by {signal.Signals(signum).name}{where}; continue with if_exists=resume")


class StopRequest:
    """Whether a signal has asked for a stop."""

    def __init__(self) -> None:
        self.signum: int = 0

    @contextmanager
    def listening(self) -> Generator[StopRequest]:
        """Catch SIGINT and SIGTERM inside the block; the handlers before it are restored after."""
        before: dict[int, Any] = {}
        try:
            for signum in (signal.SIGINT, signal.SIGTERM):
                before[signum] = signal.signal(signum, self._on_signal)
        except ValueError:
            pass  # not in the main thread (a notebook's worker): signals go where they went before
        try:
            yield self
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def _on_signal(self, signum: int, _frame: FrameType | None) -> None:
        if self.signum:  # the second one: the user means now; the last checkpoint stays valid
            raise KeyboardInterrupt
        self.signum = signum
