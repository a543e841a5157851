"""Who prints what, and how the command ends."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from align.cli import console
from align.cli import main as entry
from align.cli.main import main
from align.errors import UserError
from align.system.signals import StopRequest, late_signal

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


@pytest.mark.parametrize(
    ("rank", "out", "err", "own"),
    [(None, "a\n", "b\n", "c\n"), ("0", "a\n", "b\n", "c\n"), ("1", "", "", "Process 1: c\n")],
)
def test_the_first_process_speaks_for_all(
    rank: str | None, out: str, err: str, own: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    console.say("a")
    console.report("b")
    assert capsys.readouterr() == (out, err)
    console.report_own("c")
    assert capsys.readouterr() == ("", own)


@pytest.mark.parametrize(("rank", "waited"), [("0", []), ("1", [5])])
def test_other_processes_let_the_first_one_print(rank: str, waited: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setenv("RANK", rank)
    assert console.wait_for_first_process() is (rank == "0")
    assert slept == waited


@pytest.mark.parametrize(("processes", "waited"), [("1", []), ("2", [1])])
def test_processes_that_have_not_met_let_the_first_one_print(
    processes: str, waited: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(entry, "wait_for_first_process", lambda: calls.append(1) or False)
    monkeypatch.setenv("WORLD_SIZE", processes)
    monkeypatch.delitem(sys.modules, "align.system.processes", raising=False)
    assert entry._tell("no such file.") is (processes == "1")
    assert calls == waited


def test_a_mistake_that_the_first_process_does_not_make_is_told_by_the_one_that_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where a folder is missing on the second of two machines."""
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.delitem(sys.modules, "align.system.processes", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, said in (("0", "Error: "), ("1", "Process 1: Error: ")):
        monkeypatch.setenv("RANK", rank)
        assert main(["metod=dpo"], CONFIGS) == 2
        assert capsys.readouterr().err.count(said) == 1


def test_the_number_of_processes_is_one_unless_a_launcher_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert console.process_count() == 1
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert console.process_count() == 3


def test_only_known_noise_is_hidden() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        console.hide_noise()
        warnings.warn("is_gradient_checkpointing is deprecated", FutureWarning, stacklevel=1)
        warnings.warn("The base_model_name_or_path: was renamed", UserWarning, stacklevel=1)
        warnings.warn("is_gradient_checkpointing", UserWarning, stacklevel=1)
        warnings.warn("another", FutureWarning, stacklevel=1)
    assert [str(one.message) for one in seen] == ["is_gradient_checkpointing", "another"]


@pytest.fixture
def doing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the command do what a test says; returns its exit code and how often the other processes heard of it."""

    def call(does: Any, *words: str) -> tuple[int, int]:
        told: list[str] = []
        monkeypatch.setattr(entry, "_do", lambda *_: does())
        monkeypatch.setattr(entry, "_tell", lambda sentence: told.append(sentence) is None)
        return main(list(words), CONFIGS), len(told)

    return call


def test_every_end_of_the_command_has_its_code(doing: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def mistake() -> int:
        raise UserError("no such file.")

    def broken() -> int:
        return 1 // 0

    def leaving() -> int:
        return sys.exit(3)

    assert doing(lambda: 0) == (0, 0)
    assert doing(lambda: 143) == (143, 0)
    assert doing(mistake) == (2, 1)
    assert capsys.readouterr().err == "Error: no such file.\n"
    for does, text in ((broken, "ZeroDivisionError: integer division or modulo by zero"), (leaving, "SystemExit: 3")):
        assert doing(does) == (1, 1)
        said = capsys.readouterr().err
        line = does.__code__.co_firstlineno + 1
        assert said == f"Error: {__file__}, line {line}, in {does.__name__}: {text}; correct it.\n"
    assert doing(lambda: (_ for _ in ()).throw(KeyboardInterrupt)) == (130, 0)
    said = "Stopped by SIGINT; a run that has written a checkpoint continues with if_exists=resume.\n"
    assert capsys.readouterr().err == said
    assert doing(lambda: (_ for _ in ()).throw(KeyboardInterrupt), "export") == (130, 0)
    assert capsys.readouterr().err == "Stopped by SIGINT.\n"


def test_a_signal_to_one_command_does_not_stop_the_next_one(doing: Any) -> None:
    with StopRequest().listening() as stop:
        stop.signum = signal.SIGINT
    assert doing(late_signal) == (0, 0)


def test_an_error_of_the_program_itself_is_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """No code of the user has a part in it."""
    monkeypatch.setattr(entry, "_do", json.loads)
    with pytest.raises(TypeError):
        main([], CONFIGS)


def test_a_reader_that_stops_reading_ends_it_quietly(doing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    turned: list[Any] = []
    monkeypatch.setattr(os, "open", lambda *_: 99)
    monkeypatch.setattr(os, "dup2", lambda *args: turned.append(args))
    monkeypatch.setattr(sys, "stdout", type("Out", (), {"fileno": lambda _: 1, "flush": lambda _: None})())

    def cut_off() -> int:
        raise BrokenPipeError

    assert doing(cut_off) == (141, 0)
    assert turned == [(99, 1)]


def test_what_is_still_buffered_is_written_before_it_ends(doing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the interpreter finds the reader gone at its end, where it complains."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert doing(lambda: print("few words") or 0) == (141, 0)


def test_help_that_is_not_read_to_its_end_leaves_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)

    def help_text() -> int:
        print("few words")
        sys.exit(0)  # as argparse does

    with os.fdopen(writer, "w", encoding="utf-8") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert console.while_read(help_text) == 141


@pytest.mark.parametrize("script", sorted(file.name for file in (CONFIGS.parent / "scripts").glob("*.py")))
def test_every_script_that_prints_ends_through_the_same_door(script: str) -> None:
    text = (CONFIGS.parent / "scripts" / script).read_text()
    begin = text.partition('if __name__ == "__main__":')[2]
    assert re.search(r"\(align\(|\(main\(sys.argv\[1:\], configs|while_read\(", begin) or "print(" not in text
