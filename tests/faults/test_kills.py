"""SIGKILL at a random moment of a run, again and again: what it leaves in the end is what it leaves undisturbed."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.conftest import METHODS, TRIALS, write_inputs
from tests.faults.programs import Command
from tests.faults.records import differing, untidy

_LIVES = 4  # most kills of a run before it is left to end


def run(words: list[str], folder: Path) -> Command:
    return Command([*words, "if_exists=resume"], folder).start()


def killed(method: str, kills: int, words: Callable[..., list[str]], folder: Path, chance: random.Random) -> int:
    """Kill runs of a method until there were so many kills, and compare each in the end; returns the kills."""
    done, typed = 0, words(method)
    whole, cut = folder / "whole", folder / "cut"
    for place in (whole, cut):
        place.mkdir(parents=True)
        write_inputs(place)
    assert Command(["--help"], whole).start().wait(600) == 0  # what commands are forked from is there
    began = time.monotonic()
    assert run(typed, whole).wait(600) == 0
    seconds = time.monotonic() - began
    while done < kills:
        name, code = f"run_name=run{done}", -1
        for life in range(_LIVES + 1):
            command = run([*typed, name], cut)
            if life < _LIVES and done < kills:
                command.process.join(chance.random() * seconds)
                command.send(signal.SIGKILL)
            code = command.wait(600)
            assert code in (0, -signal.SIGKILL), command.said
            done += code != 0
            if code == 0:
                break
        assert code == 0
        place = cut / "runs" / name.partition("=")[2]
        assert differing(whole / "runs" / "run", place) == []
        assert untidy(place) == []
        _note({"method": method, "kills": done})
    return done


@pytest.mark.parametrize("method", ["ppo"])
def test_killed_at_random_a_run_ends_as_if_nothing_had_happened(
    method: str, words: Callable[..., list[str]], tmp_path: Path
) -> None:
    killed(method, 2, words, tmp_path, random.Random(0))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_survives_kills(method: str, words: Callable[..., list[str]], tmp_path: Path) -> None:
    kills = max(4, TRIALS // len(METHODS))
    assert killed(method, kills, words, tmp_path, random.Random(TRIALS)) >= kills


def _note(record: dict[str, object]) -> None:
    """With ``ALIGN_FAULTS_LOG=FILE`` each comparison is written down, for the figures of docs/reliability.md."""
    if file := os.environ.get("ALIGN_FAULTS_LOG"):
        with Path(file).open("a") as stream:
            stream.write(json.dumps(record) + "\n")
