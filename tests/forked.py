"""Functions in processes of their own, and on several ranks, forked from a process that has imported everything.

They are processes like any other, to be killed, limited and signalled, that need not import for ten seconds first. But
all have one seed of hashes: the order of a set differs only between ranks of a launcher (`test_processes.py` of the
command).
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any, Self

import torch.distributed as dist

__all__ = ["ROOT", "Forked", "on_ranks", "started_on_ranks"]

ROOT = Path(__file__).resolve().parents[1]
_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.preloaded"])
os.environ["PYTHONPATH"] = str(ROOT)  # of the process that all are forked from


class Forked:
    """``function(*arguments)`` in a process of its own; the function is found there by its name."""

    def __init__(
        self, function: Callable[..., Any], *arguments: Any, environment: Mapping[str, str] | None = None
    ) -> None:
        self._said = bytearray()
        self._reader, self._writer = _CONTEXT.Pipe(duplex=False)
        self._reading = threading.Thread(target=self._read, daemon=True)
        given = (function, arguments, dict(environment or {}), self._writer)
        self.process: Any = _CONTEXT.Process(target=_call, args=given, daemon=True)

    def _read(self) -> None:
        while data := os.read(self._reader.fileno(), 2**16):
            self._said += data

    def start(self) -> Self:
        self.process.start()
        self._writer.close()
        self._reading.start()
        return self

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
            self.kill()
            raise AssertionError(f"it did not end within {seconds:g} s:\n{self.said[-3000:]}")
        return int(self.process.exitcode)

    def finish(self) -> None:
        """Wait until it has ended as it should."""
        assert self.wait() == 0, self.said[-3000:]

    def send(self, signum: int) -> None:
        if not self.ended:
            os.kill(self.process.pid, signum)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def wait_until(self, ready: Callable[[], bool], seconds: float = 300) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            assert not self.ended, f"it ended before:\n{self.said[-3000:]}"
            assert time.monotonic() < deadline, f"nothing happened:\n{self.said[-3000:]}"
            time.sleep(0.002)


def on_ranks(number: int, function: Callable[..., Any], *arguments: Any, seconds: float = 240) -> None:
    """Call ``function(*arguments)`` on each of so many ranks, which meet as torchrun has them meet.

    Raises:
        AssertionError: With the output of the rank that failed first; the others are ended.
    """
    until = time.monotonic() + seconds
    with started_on_ranks(number, function, *arguments) as ranks:
        running = {each.process.sentinel: rank for rank, each in enumerate(ranks)}
        while running:
            ended = connection.wait(list(running), max(0.0, until - time.monotonic()))
            assert ended, f"ranks {sorted(running.values())} did not end within {seconds:g} s:\n{ranks[0].said[-3000:]}"
            for rank in [running.pop(sentinel) for sentinel in ended]:
                code = ranks[rank].wait()
                assert code == 0, f"rank {rank} ended with exit code {code}:\n{ranks[rank].said[-3000:]}"


@contextmanager
def started_on_ranks(number: int, function: Callable[..., Any], *arguments: Any) -> Generator[list[Forked]]:
    """Start ``function(*arguments)`` on each of so many ranks; in the end those that still run are killed.

    Their store is this process's, as torchrun's is its own: no two tests can want the same port.
    """
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    ranks = [Forked(function, *arguments, environment=_place(rank, number, store.port)) for rank in range(number)]
    try:
        yield [each.start() for each in ranks]
    finally:
        for each in ranks:
            each.kill()


def _place(rank: int, ranks: int, port: int) -> dict[str, str]:
    """The variables that torchrun gives a rank, all of them being on this machine."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_PORT": port}
    store = {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    return {name: str(number) for name, number in numbers.items()} | store


def _call(
    function: Callable[..., Any], arguments: tuple[Any, ...], environment: Mapping[str, str], output: Any
) -> None:
    os.environ.update(environment)
    for descriptor in (1, 2):
        os.dup2(output.fileno(), descriptor)
    output.close()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # multiprocessing has it ignored in its server
    # What is registered from here on is this process's; multiprocessing would not call it.
    atexit._clear()  # pyright: ignore[reportPrivateUsage]
    try:
        function(*arguments)
    except Exception:
        traceback.print_exc()
        raise SystemExit(1) from None
    finally:
        atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
