"""Files and folders are replaced whole or stay as they were."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from align.errors import UserError
from align.system.files import (
    disk_fault,
    disk_faults,
    held,
    new_file,
    new_folder,
    publish_folder,
    read_json,
    remove_folder,
    remove_leftovers,
    write_json,
    write_text,
)


def fill(folder: Path, text: str, *, fail: bool = False) -> None:
    with new_folder(folder) as partial:
        assert not list(partial.iterdir())
        (partial / "weights").write_text(text)
        if fail:
            raise ValueError("cut short")


def test_a_block_that_fails_leaves_the_old_folder(tmp_path: Path) -> None:
    fill(tmp_path / "best", "old")
    with pytest.raises(ValueError, match="cut short"):
        fill(tmp_path / "best", "new", fail=True)
    assert (tmp_path / "best" / "weights").read_text() == "old"
    fill(tmp_path / "best", "new")
    assert (tmp_path / "best" / "weights").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_a_block_that_fails_leaves_nothing_half_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cut short"):
        fill(tmp_path / "new", "text", fail=True)
    with pytest.raises(ValueError, match="cut short"), new_file(tmp_path / "file") as partial:  # noqa: PT012
        partial.write_text("half")
        raise ValueError("cut short")
    assert list(tmp_path.iterdir()) == []


class RustError(Exception):
    """As safetensors and tokenizers raise it."""


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError(27, "File too large", "runs/a/metrics.jsonl"), "runs/a/metrics.jsonl: File too large"),
        (OSError(30, "…", "best"), "best: Read-only file system"),
        (FileNotFoundError(2, "…", "best"), "best: No such file or directory"),
        (RustError("Error while serializing: I/O error: File too large (os error 27)"), "File too large"),
        (RustError("Error while serializing: InvalidTensor"), None),
        (ConnectionRefusedError(111, "Connection refused"), None),
        (TimeoutError("no answer"), None),
        (ValueError("28"), None),
    ],
)
def test_faults_of_the_disk_are_known(error: Exception, fault: str | None) -> None:
    assert disk_fault(error) == fault
    expected = type(error) if fault is None else UserError
    with pytest.raises(expected) as caught, disk_faults("x cannot be written", "look at it"):
        raise error
    if fault is not None:
        assert str(caught.value) == f"x cannot be written ({fault}); free space or look at it."


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".partial-file").write_text("half")
    for name in (".partial-final", ".partial-best", ".old-final", "final", ".cache"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text(name)
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".cache", "final"]
    assert (tmp_path / "final" / "weights").read_text() == "final"


def test_leftovers_do_not_get_into_a_new_folder(tmp_path: Path) -> None:
    """`fill` asserts that the folder to fill is empty."""
    for name in (".partial-best", ".old-best", "best"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "left").write_text(name)
    fill(tmp_path / "best", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["weights"]


def test_a_folder_that_is_deleted_is_never_found_half_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process killed while it deletes leaves files under the hidden name alone, which the next one removes."""
    fill(tmp_path / "best", "old")

    def killed(path: Path, **_: bool) -> None:
        if Path(path).exists():
            raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(OSError, match="killed"):
            remove_folder(tmp_path / "best")
    assert [path.name for path in tmp_path.iterdir()] == [".old-best"]
    remove_folder(tmp_path / "best")  # as if it were not there
    assert not list(tmp_path.iterdir())
    fill(tmp_path / "best", "old")
    remove_folder(tmp_path / "best")
    assert not list(tmp_path.iterdir())


def test_json_is_written_for_people_and_read_back(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    assert read_json(file) is None
    write_json(file, {"a": "é", "b": [1]})
    assert file.read_text(encoding="utf-8") == '{\n  "a": "é",\n  "b": [\n    1\n  ]\n}\n'
    assert read_json(file) == {"a": "é", "b": [1]}


def test_a_file_is_replaced_and_nothing_stays_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "state.json"
    write_json(file, {"a": "é"})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            write_text(file, "new")
    assert json.loads(file.read_text(encoding="utf-8")) == {"a": "é"}
    write_text(file, "new")
    assert file.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_files_and_folders_are_on_disk_before_they_have_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, str]] = []
    fsync, replace, rename = os.fsync, Path.replace, Path.rename

    def flushing(descriptor: int) -> None:
        done.append(("flush", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        fsync(descriptor)

    def replacing(self: Path, target: Path) -> Path:
        done.append(("replace", self.name))
        return replace(self, target)

    def renaming(self: Path, target: Path) -> Path:
        done.append(("rename", self.name))
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", flushing)
    monkeypatch.setattr(Path, "replace", replacing)
    monkeypatch.setattr(Path, "rename", renaming)
    write_text(tmp_path / "state.json", "new")
    assert done == [("flush", ".partial-state.json"), ("replace", ".partial-state.json")]
    for aside in ([], [("rename", "best")]):  # the one before it is set aside when the new one is whole
        done.clear()
        fill(tmp_path / "best", "new")
        assert done == [
            *[("flush", "weights"), ("flush", ".partial-best"), *aside],
            *[("rename", ".partial-best"), ("flush", tmp_path.name)],
        ]
    (tmp_path / "whole" / "inner").mkdir(parents=True)
    (tmp_path / "whole" / "inner" / "state").write_text("1")
    done.clear()
    publish_folder(tmp_path / "whole", tmp_path / "step-1")
    assert sorted(done[:3]) == [("flush", name) for name in ("inner", "state", "whole")]
    assert done[3:] == [("rename", "whole"), ("flush", tmp_path.name)]
    assert (tmp_path / "step-1" / "inner" / "state").read_text() == "1"


def test_a_folder_is_held_by_one_until_its_block_ends(tmp_path: Path) -> None:
    sentence = f"{tmp_path / 'run'} is in use by process {os.getpid()}; wait."
    with held(tmp_path / "run", "wait"), pytest.raises(UserError) as refused, held(tmp_path / "run", "wait"):
        raise AssertionError
    assert str(refused.value) == sentence
    with held(tmp_path / "run", "wait"):
        pass


def test_the_live_holder_is_named_where_the_one_that_took_the_folder_has_ended(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys; from pathlib import Path; from align.system.files import held\n"
        "with held(Path(sys.argv[1]), 'wait') as lock:\n"
        "    sleeper = [sys.executable, '-c', 'input()']\n"
        "    print(subprocess.Popen(sleeper, pass_fds=[lock], stdout=-3, stderr=-3).pid, flush=True)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as taker:
        assert taker.stdout is not None
        heir = int(taker.stdout.read())
        taker.wait()
        sentence = f"in use by process {heir}, which process {taker.pid} began before it ended; wait."
        with pytest.raises(UserError, match=sentence), held(tmp_path, "wait"):
            raise AssertionError


@pytest.mark.parametrize("lets_go", [True, False])
def test_a_process_that_has_ended_has_a_moment_to_let_go_of_the_folder(
    lets_go: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("align.system.files._ENDING", 10.0 if lets_go else 0.0)
    (tmp_path / ".lock").write_text("process 999999999", encoding="utf-8")
    with (tmp_path / ".lock").open(encoding="utf-8") as left:
        fcntl.flock(left, fcntl.LOCK_EX)
        if lets_go:
            threading.Timer(0.2, fcntl.flock, (left, fcntl.LOCK_UN)).start()
            with held(tmp_path, "wait"):
                assert (tmp_path / ".lock").read_text() == f"process {os.getpid()}"
        else:
            sentence = "in use by process 999999999, which has ended, or a process on another machine; wait."
            with pytest.raises(UserError, match=sentence), held(tmp_path, "wait"):
                raise AssertionError


def test_a_folder_that_cannot_be_written_is_not_held(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=r"file/run cannot be written \(Not a directory\)"),
        held(tmp_path / "file/run", ""),
    ):
        raise AssertionError
