"""The first signal asks for a stop, the second makes it; nothing of it outlives the run."""

from __future__ import annotations

import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from align.system.signals import Interrupted, StopRequest, keep_interrupts, late_signal, stop_if_alone

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("second", BOTH)
@pytest.mark.parametrize("first", BOTH)
def test_the_second_signal_stops_at_once(first: signal.Signals, second: signal.Signals) -> None:
    stop = StopRequest()
    with stop.listening() as same:
        assert same is stop
        assert stop.signum == 0
        signal.raise_signal(first)
        assert stop.signum == first
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(second)
        assert stop.signum == first  # which decides the exit code


def test_ctrl_c_inside_a_finalizer_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    keep_interrupts()

    class Garbage:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def collect() -> None:
        Garbage()
        time.sleep(5)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in the background of a shell
    try:
        with pytest.raises(KeyboardInterrupt):
            collect()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("fails", [False, True])
def test_the_handlers_before_are_put_back(fails: bool) -> None:
    before = [signal.getsignal(signum) for signum in BOTH]
    stop = StopRequest()
    try:
        with stop.listening():
            assert [signal.getsignal(signum) for signum in BOTH] == [stop._on_signal] * 2
            if fails:
                raise RuntimeError("a step failed")
    except RuntimeError:
        assert fails
    assert [signal.getsignal(signum) for signum in BOTH] == before


def test_outside_the_main_thread_the_handlers_stay() -> None:
    """A notebook's worker: Python lets only the main thread set them."""
    before = [signal.getsignal(signum) for signum in BOTH]

    def work() -> int:
        with StopRequest().listening() as stop:
            return stop.signum

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result() == 0
    assert [signal.getsignal(signum) for signum in BOTH] == before


@pytest.mark.parametrize(("signum", "code", "name"), [(signal.SIGINT, 130, "SIGINT"), (signal.SIGTERM, 143, "SIGTERM")])
def test_what_an_interrupted_run_says(signum: int, code: int, name: str) -> None:
    saved, unsaved = Interrupted(signum, Path("run/step-1")), Interrupted(signum, None)
    assert (saved.signum, saved.exit_code, saved.checkpoint) == (signum, code, Path("run/step-1"))
    assert (unsaved.signum, unsaved.exit_code, unsaved.checkpoint) == (signum, code, None)
    assert str(saved) == f"stopped by {name}; checkpoint run/step-1; continue with if_exists=resume"
    assert str(unsaved) == f"stopped by {name}; continue with if_exists=resume"


def test_a_phase_is_left_at_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    stop_if_alone()  # nobody listens
    with StopRequest().listening():
        stop_if_alone()
        signal.raise_signal(signal.SIGINT)
        monkeypatch.setenv("WORLD_SIZE", "2")
        stop_if_alone()  # the others would wait for this one
        monkeypatch.setenv("WORLD_SIZE", "1")
        with pytest.raises(Interrupted, match="stopped by SIGINT; continue with if_exists=resume") as stopped:
            stop_if_alone()
    stopped.value.run_name = "mine-7"
    assert str(stopped.value) == "stopped by SIGINT; continue with run_name=mine-7 if_exists=resume"
    stop_if_alone()


def test_an_engines_thread_is_not_stopped() -> None:
    with StopRequest().listening() as stop, ThreadPoolExecutor(1) as threads:
        stop.signum = signal.SIGINT
        threads.submit(stop_if_alone).result()


@pytest.mark.parametrize("answered", [True, False])
def test_a_signal_that_nothing_answered_is_left_for_the_next_run(answered: bool) -> None:
    late_signal()  # of other tests
    with suppress(Interrupted), StopRequest().listening():
        signal.raise_signal(signal.SIGINT)
        if answered:
            stop_if_alone()
    assert late_signal() == (0 if answered else signal.SIGINT)
    assert late_signal() == 0
