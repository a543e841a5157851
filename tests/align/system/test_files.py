"""Files and folders are replaced whole or stay as they were."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from align.system.files import new_folder, remove_leftovers, write_json, write_text


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


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    for name in (".partial-final", ".old-final", "final"):
        (tmp_path / name).mkdir()
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


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


def test_a_file_and_a_folder_are_on_disk_before_they_have_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace, rename = os.fsync, Path.replace, Path.rename

    def flushed(descriptor: int) -> None:
        done.append(f"flush {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def replaced(path: Path, target: Path) -> Path:
        done.append(f"name {target.name}")
        return replace(path, target)

    def renamed(path: Path, target: Path) -> Path:
        done.append(f"name {target.name}")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", replaced)
    monkeypatch.setattr(Path, "rename", renamed)
    write_text(tmp_path / "state.json", "new")
    assert done == ["flush .partial-state.json", "name state.json"]
    done.clear()
    fill(tmp_path / "best", "new")
    assert done == ["flush weights", "flush .partial-best", "name best", f"flush {tmp_path.name}"]
