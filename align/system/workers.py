"""A function applied to many items by all cores, with results in order.

Each worker is a new interpreter that imports what it needs: nothing is inherited from a process in which PyTorch or its
threads may be running, and the module that the user started is not imported again.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, BinaryIO, TypeVar, cast

from align.errors import UserError

__all__ = ["core_count", "in_order", "serve"]

T = TypeVar("T")
R = TypeVar("R")
_START = "import sys; sys.path[:] = {path!r}; from align.system.workers import serve; serve()"


def core_count() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(function: Callable[[T], R], items: Iterable[T], *, alone: int, processes: int) -> Iterator[R]:
    """Yield ``function(item)`` for every item, in order.

    Args:
        function: It is pickled, and so are items and results.
        items: They are taken as results are asked for, ``processes`` in advance.
        alone: Number of items that this process computes itself, before it is worth while to start others.
        processes: Number of the others; 1: this process computes everything.

    Raises:
        UserError: A worker was killed.
        Exception: That of ``function`` or of ``items``, in its turn.
    """
    left = iter(items)
    yield from map(function, islice(left, alone if processes > 1 else None))
    following = _with_failure(left)
    first = next(following, None)
    if first is None:
        return
    idle, busy = [_Worker(function) for _ in range(processes)], deque[_Worker]()
    failed: Exception | None = None
    try:
        for item in chain([first], following):
            if isinstance(item, _Failure):
                failed = item.error
                break
            results = [] if idle else [busy[0].receive()]
            worker = idle.pop() if idle else busy.popleft()
            worker.send(item)
            busy.append(worker)
            yield from results
        while busy:
            yield busy[0].receive()
            idle.append(busy.popleft())
    finally:
        for worker in (*idle, *busy):
            worker.end()
    if failed is not None:
        raise failed


@dataclass(frozen=True)
class _Failure:
    error: Exception


def _with_failure(items: Iterator[T]) -> Iterator[T | _Failure]:
    """Yield the items, and at the end the exception that there is no other, so that it is raised in its turn."""
    try:
        yield from items
    except Exception as error:
        yield _Failure(error)


class _Worker:
    """Another interpreter, which computes one item at a time."""

    def __init__(self, function: Callable[..., Any]) -> None:
        command = [sys.executable, "-c", _START.format(path=sys.path)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._input, self._output = cast(Any, self._process.stdin), cast(Any, self._process.stdout)
        self.send(function)

    def send(self, item: Any) -> None:
        """Give it an item; it must have no other."""
        try:
            pickle.dump(item, self._input, protocol=5)
            self._input.flush()
        except BrokenPipeError:
            raise self._killed() from None

    def receive(self) -> Any:
        """Wait for the result."""
        try:
            result, error = pickle.load(self._output)
        except (EOFError, pickle.UnpicklingError):
            raise self._killed() from None
        if error is not None:
            raise error
        return result

    def end(self) -> None:
        """Stop it, whatever it does."""
        self._process.kill()
        self._process.wait()
        with suppress(BrokenPipeError):
            self._input.close()
        self._output.close()

    def _killed(self) -> UserError:
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return UserError(
            f"a process that read and checked data was ended from outside ({how}), as happens when memory runs out; "
            "free some memory and start again."
        )


def serve() -> None:
    """Be a worker: compute what comes over standard input, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started it
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no result
    gc.disable()  # it looks at every row; once after each item is enough
    with suppress(_Orphaned):
        _answer_all(output)


class _Orphaned(Exception):
    """The process that started this one is gone, perhaps in the middle of an item or a result."""


def _answer_all(output: BinaryIO) -> None:
    function = _received()
    gc.freeze()  # what is there stays, collections need not look at it
    while True:
        item = answer = None
        gc.collect()  # the tracebacks of bad rows hold the whole item
        item = _received()
        try:
            answer = (function(item), None)
        except Exception as error:
            answer = (None, error)
        try:
            pickle.dump(answer, output, protocol=5)
            output.flush()
        except BrokenPipeError:
            os._exit(0)  # closing the output would fail again


def _received() -> Any:
    try:
        return pickle.load(sys.stdin.buffer)
    except (EOFError, pickle.UnpicklingError):
        raise _Orphaned from None
