"""Checkpoints: written by all ranks, as many kept as asked for, and of those on the disk the newest whole one found."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from align.errors import UserError
from align.runs import checkpoint as module
from align.runs.checkpoint import CheckpointStore, newest_version, verify
from align.system.identity import Identity
from tests.align.runs.checkpoints import save, store


class TestRanks:
    """Order of what each rank does: nothing is written before rank 0 has made the folder, nor published before all."""

    def events(self, rank: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        done: list[str] = []
        partial = folder / ".partial-step-00000001"

        def barrier() -> None:
            done.append("barrier")
            if done.count("barrier") == 1:  # what rank 0 has done by then
                partial.mkdir(parents=True, exist_ok=True)

        monkeypatch.setattr(module, "publish_folder", lambda *_: done.append("publish"))
        monkeypatch.setattr(CheckpointStore, "_rotate", lambda *_: done.append("rotate"))

        def write(name: str) -> Callable[[Path], None]:
            def call(place: Path) -> None:
                assert place == partial
                assert place.is_dir()
                done.append(name)

            return call

        checkpoints = CheckpointStore(folder, Identity({}), keep=1, rank=rank, barrier=barrier)
        assert checkpoints.save(1, {}, shared=write("shared"), own=write("own")) == folder / "step-00000001"
        return done

    def test_the_first_rank_writes_what_is_shared_and_publishes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.events(0, tmp_path, monkeypatch) == [
            *("barrier", "own", "shared", "barrier"),
            *("publish", "rotate", "barrier"),
        ]

    def test_other_ranks_write_their_own_files_only(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.events(1, tmp_path, monkeypatch) == ["barrier", "own", "barrier", "barrier"]


def test_a_step_that_was_saved_is_not_saved_again(tmp_path: Path) -> None:
    checkpoints = store(tmp_path)
    saved = save(checkpoints, 1)
    before = (saved / "manifest.json").read_bytes()
    written: list[Path] = []
    assert checkpoints.save(1, {"n": 9}, shared=written.append, own=written.append) == saved
    assert written == []
    assert (saved / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_as_many_are_kept_as_asked_for(keep: int, tmp_path: Path) -> None:
    checkpoints = store(tmp_path, keep=keep)
    for step in (1, 2, 9, 10, 11):
        save(checkpoints, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-{n:08d}" for n in (2, 9, 10, 11)[-keep:]]


def test_what_is_found_is_what_was_saved(tmp_path: Path) -> None:
    save(store(tmp_path), 7)
    found, notes = store(tmp_path).latest()
    assert found == module.Checkpoint(tmp_path / "step-00000007", 7, {"n": 7}, module.VERSION)
    assert notes == []
    assert store(tmp_path / "none").latest() == (None, [])


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda f: (f / "optimizer").unlink(), "optimizer is missing"),
    "cut": (
        lambda f: (f / "policy" / "weights").write_bytes(b"\3" * 99),
        "policy/weights has 99 bytes instead of 100",
    ),
    "altered": (
        lambda f: (f / "policy" / "weights").write_bytes(b"\4" * 100),
        r"policy/weights is damaged \(its sha256 differs\)",
    ),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), ".*No such file"),
    "no JSON": (lambda f: (f / "manifest.json").write_text("{"), "manifest.json or manifest.sha256 is damaged"),
    "no seal": (lambda f: (f / "manifest.sha256").unlink(), "manifest.sha256 is missing"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_and_named(damage: str, tmp_path: Path) -> None:
    harm, reason = DAMAGES[damage]
    for step in (1, 2, 3):
        save(store(tmp_path, keep=3), step)
    harm(tmp_path / "step-00000003")
    found, notes = store(tmp_path).latest()
    assert found is not None
    assert found.step == 2
    assert len(notes) == 1
    assert re.match(f"checkpoint step-00000003 passed over: {reason}", notes[0])
    with pytest.raises((OSError, ValueError), match=reason):
        verify(tmp_path / "step-00000003")


def test_a_damaged_checkpoint_is_written_again_at_its_step_and_goes_with_the_next(tmp_path: Path) -> None:
    """Otherwise the run would verify it in place of the one just saved, and count it as kept."""
    for step in (1, 2, 3, 4):
        save(store(tmp_path, keep=9), step)
    for step in (3, 4):
        DAMAGES["cut"][0](tmp_path / f"step-0000000{step}")
    resumed = store(tmp_path, keep=9)
    assert [note.split()[1] for note in resumed.latest()[1]] == ["step-00000004", "step-00000003"]
    save(resumed, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-0000000{n}" for n in (1, 2, 3)]
    assert verify(tmp_path / "step-00000003")["step"] == 3


def test_a_checkpoint_that_reads_back_otherwise_is_named_and_the_others_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = store(tmp_path, keep=1)
    save(checkpoints, 1)
    publish = module.publish_folder

    def damaging(partial: Path, folder: Path) -> None:
        publish(partial, folder)
        (folder / "optimizer").write_text("[]")

    monkeypatch.setattr(module, "publish_folder", damaging)
    with pytest.raises(
        UserError, match=r"step-00000002 reads back otherwise than it was written, optimizer is damaged"
    ):
        save(checkpoints, 2)
    found, _ = store(tmp_path).latest()
    assert found is not None
    assert found.step == 1


def test_other_names_are_no_checkpoints_and_stay(tmp_path: Path) -> None:
    stray = ["step-foo", "step-9", "step-00000009.bak", "step-00000009 (copy)", "step-٠٠٠٠٠٠٠٩", "notes"]
    for name in stray:
        (tmp_path / name).mkdir()
    (tmp_path / "step-00000099").write_text("a file")
    (tmp_path / ".partial-file").write_text("left")
    for step in (1, 2, 3):
        save(store(tmp_path, keep=1), step)
    found, notes = store(tmp_path).latest()
    assert found is not None
    assert (found.step, notes, newest_version(tmp_path)) == (3, [], module.VERSION)
    assert {path.name for path in tmp_path.iterdir()} == {*stray, "step-00000099", "step-00000003"}


def test_the_newest_is_that_of_the_largest_step(tmp_path: Path) -> None:
    for step in (99_999_999, 100_000_000):
        store(tmp_path).save(step, {}, shared=lambda _: None, own=lambda _: None)
    found, _ = store(tmp_path).latest()
    assert found is not None
    assert found.step == 100_000_000


def test_a_folder_under_another_name_is_passed_over(tmp_path: Path) -> None:
    save(store(tmp_path), 1)
    shutil.copytree(tmp_path / "step-00000001", tmp_path / "step-00000009")
    found, notes = store(tmp_path).latest()
    assert found is not None
    assert found.step == 1
    assert notes == ["checkpoint step-00000009 passed over: manifest.json is that of step 1"]
