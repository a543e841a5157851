"""Watches the other processes of a run: where one fails, is killed or stands still, all leave soon and say why.

Each process writes once a second into the store that the processes met at (torchrun's, or the first process's), and
reads what the others wrote. A collective operation alone would wait for ever for a process that stands still, and of
one that failed it says only that the connection is closed.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from align.system.terminal import visible

__all__ = ["Watch", "explained", "numbering"]

BEAT = 1.0  # seconds between two looks
GRACE = 2.0  # seconds for the main thread to leave by an error of its own
STILL = 20.0  # seconds that a process that this one sees may be stopped
SILENT = 120.0  # seconds without a word of a process, on another machine too
_BOOT, _NAMESPACE = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")


def explained(lost: str) -> str:
    """Return the line for the user on a process that is lost."""
    remedy = "" if "if_exists=resume" in lost else "; continue with if_exists=resume"
    return f"Error: {lost.rstrip('.')}{remedy}."


def numbering() -> str:
    """Return what tells apart the machines, and on one the containers, in which a process's number means another one.

    Two of them may have one host name.
    """
    try:
        return f"{_BOOT.read_text().strip()} {_NAMESPACE.readlink()}"
    except OSError:  # not Linux
        return socket.gethostname()


@dataclass
class Watch:
    """One process's view of the others; `begin` starts a thread."""

    rank: int
    size: int
    store: Any
    """Of `torch.distributed`; used by this thread alone."""
    leave: Callable[[str], None] | None = None
    """Called with the reason when another process is lost; None: print it, and end this process."""
    lost: str = ""
    """Sentence on the process that is lost, as soon as one is."""
    _over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread = field(init=False)
    _looks: int = 0

    def begin(self) -> None:
        """Start to watch."""
        self.store.set(self._key("place", self.rank), f"{numbering()}|{os.getpid()}")
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()
        threading.Thread(target=self._watch_itself, name="watch of the watch", daemon=True).start()

    def end(self) -> None:
        """This process leaves as it should.

        The thread is waited for: one that still asks the store, which is C++, when the interpreter ends is unwound
        by force, and C++ then aborts the process (``terminate called without an active exception``).
        """
        self._over.set()
        self._write("left", "1")
        self._thread.join()

    def announce(self, sentence: str) -> None:
        """Say why this process fails, and wait until the first one has heard of it, or cannot."""
        if self._over.is_set():
            return
        self._over.set()
        self._write("failed", sentence)
        if self.rank == 0:
            self.heard()
        until = time.monotonic() + GRACE + 4 * BEAT
        while self.rank != 0 and time.monotonic() < until and not self._read("heard", 0):
            time.sleep(BEAT / 4)

    def wait(self) -> str:
        """Return the sentence on a process that is lost, for which it looks a little longer; empty: none is."""
        until = time.monotonic() + GRACE
        while not self.lost and time.monotonic() < until:
            self._look({})
            time.sleep(BEAT / 4)
        return self.lost

    def heard(self) -> None:
        """Tell the others that this process has said why it leaves."""
        self._over.set()
        self._write("heard", "1")

    @property
    def speaks(self) -> bool:
        """The first process says why all leave; where it cannot, the others do."""
        return self.rank == 0 or not self.lost.startswith("process 0 failed")

    def _run(self) -> None:
        spoke: dict[int, tuple[str, float]] = {}
        beat = 0
        while not self._over.wait(BEAT):
            beat += 1
            if not self._write("beat", str(beat)):
                self.lost = self.lost or "the process that started this run has ended"
            self._look(spoke)
            if self.lost and not self._over.wait(GRACE):
                (self.leave or self._leave)(self.lost)
                return
            self._looks += 1

    def _watch_itself(self) -> None:
        """Leave where the store does not answer, and the thread waits for it for ever: the network is gone.

        Seconds are counted in which this process ran: one that was stopped, or a machine that slept, has heard nothing.
        """
        seen, silent = self._looks, 0.0
        while not self._over.wait(BEAT) and self._thread.is_alive():
            silent = silent + BEAT if self._looks == seen else 0.0
            seen = self._looks
            if silent > SILENT:
                self.lost = f"the machine of process 0 has not answered for {silent:.0f} seconds"
                (self.leave or self._end)(self.lost)
                return

    def _look(self, spoke: dict[int, tuple[str, float]]) -> None:
        """Look once at each other process; ``spoke`` has the last words of each, and when they were new."""
        now = time.monotonic()
        for other in range(self.size):
            if other == self.rank or self.lost:
                continue
            if failed := self._read("failed", other):
                self.lost = f"process {other} failed: {failed}"
                return
            if self._read("left", other):
                continue
            state = self._state(other)
            word = state if state in ("ended", "stopped") else self._read("beat", other)
            if spoke.get(other, ("?", 0.0))[0] != word:
                spoke[other] = (word, now)
            if state == "ended" and not self._read("left", other) and not self._read("failed", other):
                self.lost = f"process {other} was ended from outside, as happens when memory runs out"
            elif other in spoke and now - spoke[other][1] > (STILL if state == "stopped" else SILENT):
                stands = "stopped" if state == "stopped" else "silent"
                self.lost = f"process {other} has been {stands} for {now - spoke[other][1]:.0f} seconds"

    def _state(self, other: int) -> str:
        """Return ``running``, ``stopped`` or ``ended`` of a process that this one sees; empty for others."""
        where, _, number = self._read("place", other).partition("|")
        if not number or where != numbering():
            return ""
        try:
            status = psutil.Process(int(number)).status()
        except psutil.NoSuchProcess:
            return "ended"
        if status in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return "ended"
        return "stopped" if status in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP) else "running"

    def _leave(self, sentence: str) -> None:
        """End this process, whose main thread waits for the lost one and hears nothing."""
        if self.speaks:
            print(visible(explained(sentence)), file=sys.stderr, flush=True)
        self.heard()
        os._exit(1)

    def _end(self, sentence: str) -> None:
        """The same where the others cannot be told."""
        print(visible(explained(sentence)), file=sys.stderr, flush=True)
        os._exit(1)

    def _key(self, what: str, rank: int) -> str:
        return f"align/{what}/{rank}"

    def _write(self, what: str, value: str) -> bool:
        with self._lock:
            try:
                self.store.set(self._key(what, self.rank), value)
            except RuntimeError:  # the store is gone
                return False
        return True

    def _read(self, what: str, rank: int) -> str:
        with self._lock:
            try:
                key = self._key(what, rank)
                return self.store.get(key).decode() if self.store.check([key]) else ""
            except RuntimeError:
                return ""
