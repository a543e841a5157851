"""Disks that are full, read-only or gone in the middle of a run: one sentence, and nothing lost."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.faults import traps
from tests.faults.programs import Command
from tests.faults.records import differing, untidy

Make = Callable[..., Command]
Whole = Callable[..., Path]


def ends_with_a_sentence(command: Command, fault: str) -> None:
    code = command.start().wait()
    assert code in (1, 2), (code, command.said)
    assert "Traceback" not in command.said, command.said
    (sentence,) = re.findall(r"^Error: .*$", command.said, flags=re.MULTILINE)
    assert fault in sentence
    assert "free space" in sentence


def resumes(command: Make, whole: Whole, run: Path) -> None:
    assert not list(run.rglob(".partial-*")), "temporary files stayed"
    again = command("sft", "if_exists=resume")
    assert again.start().wait() == 0, again.said
    assert differing(whole("sft"), run, checkpoints=1) == []
    assert untidy(run) == []


@pytest.mark.parametrize(
    "size", [0, 20_000, *(pytest.param(n, marks=pytest.mark.slow) for n in (300, 2_000, 6_000, 10_000, 40_000, 80_000))]
)
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_from_its_last_checkpoint(
    size: int, command: Make, whole: Whole, tmp_path: Path
) -> None:
    """The limit comes after the first checkpoint: the log, the next checkpoint, a chart or the report is too large."""
    trap = partial(traps.after_a_save, 1, partial(traps.limit_files, size))
    ends_with_a_sentence(command("sft", prepare=trap), "File too large")
    assert (tmp_path / "runs" / "run" / "checkpoints" / "step-00000002" / "manifest.json").exists() or size > 6_000
    resumes(command, whole, tmp_path / "runs" / "run")


@pytest.mark.parametrize("place", ["best", "final", "evaluation.json", "report.html"])
@pytest.mark.slow
def test_wherever_the_disk_fills_up(place: str, command: Make, whole: Whole, tmp_path: Path) -> None:
    """Even where the checkpoint of the step could be written: the log may lack what that checkpoint counts as done."""
    writers = {
        "best": "align.training.monitor:replace_policy",
        "final": "align.training.trainer:write_final",
        "evaluation.json": "align.training.monitor:write_json",
        "report.html": "align.training.trainer:write_report",
    }
    trap = partial(traps.at, writers[place], 1, partial(traps.limit_files, 10))
    ends_with_a_sentence(command("sft", prepare=trap), "File too large")
    resumes(command, whole, tmp_path / "runs" / "run")


@pytest.mark.slow
def test_a_full_disk_while_candidates_are_drawn(command: Make) -> None:
    trap = partial(traps.at, "align.candidates.store:GrowingFile.append", 1, partial(traps.limit_files, 100))
    ends_with_a_sentence(command("rft", "stage=sample", prepare=trap), "File too large")
    again = command("rft", "stage=sample", "if_exists=resume")
    assert again.start().wait() == 0, again.said


@pytest.mark.parametrize("size", [6_000, pytest.param(2_000, marks=pytest.mark.slow)])
def test_killed_inside_a_file_of_a_checkpoint(size: int, command: Make, whole: Whole, tmp_path: Path) -> None:
    """The kernel kills it where the file reaches this size; the partial checkpoint is never taken for one."""
    trap = partial(traps.after_a_save, 1, partial(traps.die_beyond, size))
    assert command("sft", prepare=trap).start().wait() < 0
    again = command("sft", "if_exists=resume")
    assert again.start().wait() == 0, again.said
    assert differing(whole("sft"), tmp_path / "runs" / "run") == []
    assert untidy(tmp_path / "runs" / "run") == []


@pytest.mark.parametrize("file", range(12))
@pytest.mark.slow
def test_killed_after_each_file_of_a_save(file: int, command: Make, whole: Whole, tmp_path: Path) -> None:
    """Before the ``file``-th fsync of the second save: files, folders, the rename, and the rotation."""

    trap = partial(traps.after_a_save, 1, partial(_die_at_fsync, file + 1))
    assert command("sft", prepare=trap).start().wait() == -9
    again = command("sft", "if_exists=resume")
    assert again.start().wait() == 0, again.said
    assert differing(whole("sft"), tmp_path / "runs" / "run") == []
    assert untidy(tmp_path / "runs" / "run") == []


def _die_at_fsync(number: int) -> None:
    traps.at("align.system.files:_flush", number, partial(traps.signalled, 9))


def test_a_folder_that_vanishes_and_comes_back(command: Make, whole: Whole, tmp_path: Path) -> None:
    """As a network disk does; the run is not begun anew in the empty place."""
    runs, away = tmp_path / "runs", tmp_path / "away"
    trap = partial(traps.after_a_save, 1, partial(os.rename, runs, away))
    ends_with_a_sentence(command("sft", prepare=trap), "No such file or directory")
    assert not runs.exists()
    away.rename(runs)
    resumes(command, whole, runs / "run")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 1 MB, where this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    if _mount("-t", "tmpfs", "-o", "size=1m", "none", str(place)):
        shutil.rmtree(place)
        pytest.skip("this user may mount nothing")
    yield place
    _mount("-l", str(place), program="umount")


def _mount(*arguments: str, program: str = "mount") -> int:
    if shutil.which(program) is None:
        return 1
    return subprocess.run([program, *arguments], capture_output=True, check=False).returncode


def test_a_small_disk_fills_up_and_is_enlarged(command: Make, whole: Whole, small_disk: Path) -> None:
    place = f"output_root={small_disk}"
    trap = partial(traps.after_a_save, 1, partial(_fill, small_disk))
    ends_with_a_sentence(command("sft", place, prepare=trap), "No space left on device")
    assert not list(small_disk.rglob(".partial-*"))
    (small_disk / "filler").unlink()
    assert _mount("-o", "remount,size=50m", str(small_disk)) == 0
    again = command("sft", place, "if_exists=resume")
    assert again.start().wait() == 0, again.said
    assert differing(whole("sft"), small_disk / "run") == []


def _fill(disk: Path) -> None:
    free = shutil.disk_usage(disk).free
    (disk / "filler").write_bytes(bytes(max(0, free - 12_000)))


def test_a_disk_that_becomes_read_only(command: Make, whole: Whole, small_disk: Path) -> None:
    place = f"output_root={small_disk}"
    assert _mount("-o", "remount,size=50m", str(small_disk)) == 0
    trap = partial(traps.after_a_save, 1, partial(_mount, "-o", "remount,ro", str(small_disk)))
    ends_with_a_sentence(command("sft", place, prepare=trap), "Read-only file system")
    assert _mount("-o", "remount,rw", str(small_disk)) == 0
    again = command("sft", place, "if_exists=resume")
    assert again.start().wait() == 0, again.said
    assert differing(whole("sft"), small_disk / "run") == []
    assert untidy(small_disk / "run") == []
