"""Faults of a process at a moment that the test names: called in it before the command begins."""

from __future__ import annotations

import importlib
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any


def at(place: str, number: int, do: Callable[[], Any], *, after: bool = False) -> None:
    """Let the ``number``-th call of ``module:Class.method`` do something first, or after."""
    module, _, path = place.partition(":")
    holder: Any = importlib.import_module(module)
    *owners, name = path.split(".")
    for owner in owners:
        holder = getattr(holder, owner)
    original, calls = getattr(holder, name), [0]

    def call(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        mine = calls[0] == number
        if mine and not after:
            do()
        result = original(*arguments, **named)
        if mine and after:
            do()
        return result

    call.__code__ = call.__code__.replace(co_filename="<trap>")  # else what fails in it is the user's code
    setattr(holder, name, call)


def signalled(signum: int, times: int = 1) -> None:
    for _ in range(times):
        os.kill(os.getpid(), signum)


def limit_files(size: int) -> None:
    """No file may become larger: writing on fails with EFBIG, as ENOSPC where a disk is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def die_beyond(size: int) -> None:
    """The same, but the kernel kills the process in the middle of the write."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    limit_files(size)


def limit_memory(more: int) -> None:
    """The process may take so many bytes beside those it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, resource.RLIM_INFINITY))


def after_a_save(number: int, do: Callable[[], Any]) -> None:
    """Do something when the ``number``-th checkpoint is whole on disk."""
    from align.runs.checkpoint import CheckpointStore

    original, calls = CheckpointStore.save, [0]

    def save(self: CheckpointStore, *arguments: Any, **named: Any) -> Path:
        folder = self.whole(original(self, *arguments, **named))
        calls[0] += 1
        if calls[0] == number:
            do()
        return folder

    CheckpointStore.save = save
