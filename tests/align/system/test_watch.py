"""Processes that watch each other, over a store that is a dictionary; the real thing is in test_two_processes.py."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from align.system import watch as module
from align.system.watch import Watch, explained, numbering


class Store(dict[str, str]):
    """As `torch.distributed.Store`; it may be gone."""

    gone = False

    def set(self, key: str, value: str) -> None:
        if self.gone:
            raise RuntimeError("Connection reset by peer")
        self[key] = value

    def check(self, keys: list[str]) -> bool:
        if self.gone:
            raise RuntimeError("Connection reset by peer")
        return all(key in self for key in keys)

    def get(self, key: str, /) -> bytes:  # type: ignore[override]
        return self[key].encode()


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("BEAT", 0.01), ("GRACE", 0.05), ("STILL", 0.2), ("SILENT", 0.5)):
        monkeypatch.setattr(module, name, seconds)


@contextmanager
def watching(store: Store, rank: int = 0, size: int = 2) -> Generator[tuple[Watch, list[str]]]:
    """A watch that notes why it would leave."""
    heard: list[str] = []
    watch = Watch(rank, size, store, leave=heard.append)
    watch.begin()
    yield watch, heard
    watch.end()


def until(condition: object, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:  # type: ignore[operator]
        time.sleep(0.01)


def test_a_store_that_never_answers() -> None:
    """As that of another machine behind a cut network: the call neither returns nor fails."""
    cut, store = threading.Event(), Store()

    def answer(key: str, value: str) -> None:
        if key == "align/beat/1" and int(value) > 3:
            cut.wait(20)
        store[key] = value

    store.set = answer  # type: ignore[method-assign]
    with watching(store, rank=1) as (watch, heard):
        until(lambda: heard)
        cut.set()
        assert heard == [f"the machine of process 0 has not answered for {module.SILENT + module.BEAT:.0f} seconds"]
        assert watch.speaks


def test_a_slow_store_is_no_silent_one() -> None:
    store = Store()

    def answer(key: str, value: str) -> None:
        time.sleep(module.SILENT / 5)
        store[key] = value

    store.set = answer  # type: ignore[method-assign]
    with watching(store, size=1) as (_, heard):
        time.sleep(3 * module.SILENT)
    assert not heard


def other(store: Store, process: subprocess.Popen[bytes], rank: int = 1) -> None:
    store[f"align/place/{rank}"] = f"{numbering()}|{process.pid}"


@contextmanager
def sleeper() -> Generator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_one_that_fails_is_named_with_its_reason() -> None:
    store = Store()
    with watching(store) as (watch, heard), watching(store, 1) as (failing, _):
        failing.announce("KeyError: 'row'")
        until(lambda: heard)
        assert heard == ["process 1 failed: KeyError: 'row'"]
        assert watch.speaks
    assert "align/failed/1" in store


def test_one_that_fails_waits_until_the_first_one_has_said_it() -> None:
    store = Store()
    failing = Watch(1, 2, store)
    threading.Timer(0.03, Watch(0, 2, store).heard).start()
    failing.announce("KeyError")
    assert "align/heard/0" in store
    failing.announce("another")  # the first word counts
    assert store["align/failed/1"] == "KeyError"


def test_one_that_was_killed() -> None:
    store = Store()
    with sleeper() as process, watching(store) as (_, heard):
        other(store, process)
        process.send_signal(signal.SIGKILL)
        until(lambda: heard)
        assert heard == ["process 1 was ended from outside, as happens when memory runs out"]


def test_one_that_is_stopped_and_goes_on_is_not_lost() -> None:
    store = Store()
    with sleeper() as process, watching(store) as (_, heard):
        other(store, process)
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.1)
        process.send_signal(signal.SIGCONT)
        time.sleep(0.3)
        assert not heard
        process.send_signal(signal.SIGSTOP)
        until(lambda: heard)
        assert heard == ["process 1 has been stopped for 0 seconds"]


def test_one_of_another_machine_is_silent() -> None:
    store = Store()
    store["align/place/1"], store["align/beat/1"] = "elsewhere|1", "7"
    with watching(store) as (_, heard):
        time.sleep(0.3)
        store["align/beat/1"] = "8"
        time.sleep(0.3)
        assert not heard
        until(lambda: heard)
        assert heard == ["process 1 has been silent for 0 seconds"] or heard == [
            "process 1 has been silent for 1 seconds"
        ]


@pytest.mark.parametrize("part", ["_BOOT", "_NAMESPACE"])
def test_one_of_a_container_with_the_same_host_name_is_not_looked_for_here(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There its number is that of another process, or of none."""
    (tmp_path / "_BOOT").write_text("another\n")
    (tmp_path / "_NAMESPACE").symlink_to("pid:[1]")
    with monkeypatch.context() as patch:
        patch.setattr(module, part, tmp_path / part)
        theirs = numbering()
    store = Store()
    store["align/place/1"], store["align/beat/1"] = f"{theirs}|99999999", "7"
    with watching(store) as (_, heard):
        time.sleep(0.3)
        assert not heard


def test_where_linux_tells_nothing_a_machine_is_its_host_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BOOT", tmp_path / "absent")
    assert numbering() == socket.gethostname()


def test_one_that_left_as_it_should_is_not_missed() -> None:
    store = Store()
    with sleeper() as process, watching(store) as (_, heard):
        other(store, process)
        store["align/left/1"] = "1"
        process.kill()
        time.sleep(0.2)
        assert not heard


def test_its_thread_is_over_before_the_process_leaves() -> None:
    """One that still asked the store as the interpreter ends would abort the process."""

    class Slow(Store):
        def check(self, keys: list[str]) -> bool:
            time.sleep(0.05)
            return super().check(keys)

    watch = Watch(0, 2, Slow())
    watch.begin()
    time.sleep(0.05)
    watch.end()
    assert watch._thread.name not in [thread.name for thread in threading.enumerate()]


def test_without_the_store_nobody_is_left_to_wait_for() -> None:
    store = Store()
    with watching(store, 1) as (_, heard):
        store.gone = True
        until(lambda: heard)
        assert heard == ["the process that started this run has ended"]


def test_an_error_of_its_own_leaves_first() -> None:
    """The main thread then says it; the watch says nothing."""
    store = Store()
    with watching(store) as (watch, heard), watching(store, 1) as (failing, _):
        threading.Thread(target=failing.announce, args=("KeyError",)).start()
        assert watch.wait() == "process 1 failed: KeyError"
        watch.heard()
        time.sleep(0.2)
        assert not heard


def test_who_speaks() -> None:
    second = Watch(1, 2, Store())
    for lost, speaks in (("process 0 failed: x", False), ("process 0 was ended", True), ("process 2 failed: x", True)):
        second.lost = lost
        assert second.speaks is speaks
    assert explained("process 1 failed: no.") == "Error: process 1 failed: no; continue with if_exists=resume."
    assert explained("a; continue with if_exists=resume.") == "Error: a; continue with if_exists=resume."


def test_the_process_ends_although_its_main_thread_waits() -> None:
    """As in a collective operation, in which no Python runs."""
    code = (
        "import sys, time\n"
        "from align.system import watch\n"
        "watch.BEAT = watch.GRACE = 0.05\n"
        "from tests.align.system.test_watch import Store\n"
        "store = Store()\n"
        "w = watch.Watch(0, 2, store); w.begin()\n"
        "store['align/failed/1'] = 'KeyError: \\x1b[31m'\n"
        "time.sleep(60)\n"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 1
    assert done.stderr == "Error: process 1 failed: KeyError: \\x1b[31m; continue with if_exists=resume.\n"
    assert time.monotonic() - began < 40
