"""Whatever moment a save is cut at, the newest whole checkpoint is the one that is found."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from align.errors import UserError
from align.runs import checkpoint as module
from align.runs.checkpoint import verify
from tests.align.runs.checkpoints import save, store


class KilledError(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


_CHANGING = ("rename", "replace", "write_text", "write_bytes", "mkdir")
_CALLS = 23  # system calls of a save that change the disk; the test below counts them


@contextlib.contextmanager
def writes_wrapped(
    monkeypatch: pytest.MonkeyPatch, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Generator[None]:
    """Put ``wrap`` around every call of a save that changes the disk, inside the block."""
    with monkeypatch.context() as patch:
        for name in _CHANGING:
            patch.setattr(Path, name, wrap(getattr(Path, name)))
        patch.setattr(os, "fsync", wrap(os.fsync))
        patch.setattr(module.shutil, "rmtree", wrap(module.shutil.rmtree))
        yield


@pytest.mark.parametrize("moment", range(_CALLS + 1))
def test_killed_at_any_moment_of_a_save(moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dies before the n-th system call that changes the disk; then the same save is done again."""
    checkpoints = store(tmp_path, keep=1)
    save(checkpoints, 1)
    remaining = [moment]

    def dying(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if remaining[0] == 0:
                raise KilledError
            remaining[0] -= 1
            return original(*args, **kwargs)

        return call

    with writes_wrapped(monkeypatch, dying), contextlib.suppress(KilledError):
        save(checkpoints, 2)
    found, skipped = store(tmp_path).latest()
    assert found is not None
    assert found.step in (1, 2)
    assert skipped == []
    assert not list(tmp_path.rglob(".*"))  # where it was the last save, no other would tidy up
    again = store(tmp_path, keep=1)
    save(again, 2)
    save(again, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]


def test_the_moments_above_reach_from_before_the_first_write_to_after_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = store(tmp_path, keep=1)
    save(checkpoints, 1)
    calls = 0

    def counting(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            return original(*args, **kwargs)

        return call

    with writes_wrapped(monkeypatch, counting):
        save(checkpoints, 2)
    assert calls == _CALLS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002"]


def test_a_full_disk_is_named_and_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = store(tmp_path)
    save(checkpoints, 1)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=r"No space left on device.*if_exists=resume"):
            save(checkpoints, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert verify(tmp_path / "step-00000001")["step"] == 1


def test_a_checkpoint_is_flushed_before_its_name_and_deleted_under_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, str]] = []
    fsync, rename, rmtree = os.fsync, Path.rename, shutil.rmtree

    def flushing(descriptor: int) -> None:
        done.append(("flush", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        fsync(descriptor)

    def renaming(self: Path, target: Path) -> Path:
        done.append(("rename", self.name))
        return rename(self, target)

    def removing(path: Path, *args: Any, **kwargs: Any) -> None:
        done.append(("remove", Path(path).name))
        rmtree(path, *args, **kwargs)

    checkpoints = store(tmp_path, keep=1)
    save(checkpoints, 1)
    monkeypatch.setattr(os, "fsync", flushing)
    monkeypatch.setattr(Path, "rename", renaming)
    monkeypatch.setattr(shutil, "rmtree", removing)
    save(checkpoints, 2)
    published = done.index(("rename", ".partial-step-00000002"))
    flushed = {name for what, name in done[:published] if what == "flush"}
    assert flushed >= {"policy", "weights", "optimizer", "random-0", "manifest.json", ".partial-step-00000002"}
    assert ("flush", tmp_path.name) in done[published:]
    assert ("remove", "step-00000001") not in done
    assert ("remove", ".old-step-00000001") in done[done.index(("rename", "step-00000001")) :]


def test_a_failed_save_leaves_nothing_on_any_rank(tmp_path: Path) -> None:
    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"checkpoint of step 1 could not be written .*No space left on device"):
        store(tmp_path).save(1, {}, shared=lambda _: None, own=full)
    assert list(tmp_path.iterdir()) == []


def test_training_goes_on_while_a_checkpoint_becomes_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released, publish = Event(), module.publish_folder
    monkeypatch.setattr(module, "publish_folder", lambda *folders: released.wait(20) and publish(*folders))
    checkpoints = store(tmp_path)
    folder = checkpoints.save(1, {}, shared=lambda _: None, own=lambda _: None, waits=False)
    checkpoints.raise_if_failed()
    assert not folder.exists()
    released.set()
    assert checkpoints.whole(folder) == folder
    assert verify(folder)["step"] == 1
    checkpoints.save(2, {}, shared=lambda _: None, own=lambda _: None, waits=False)
    checkpoints.close()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000001", "step-00000002"]


def test_a_disk_that_fills_up_meanwhile_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Path) -> None:
        raise OSError(28, "No space left on device")

    checkpoints = store(tmp_path)
    monkeypatch.setattr(module, "publish_folder", full)
    checkpoints.save(1, {}, shared=lambda _: None, own=lambda _: None, waits=False)
    checkpoints.close()
    for ask in (checkpoints.raise_if_failed, checkpoints.wait):
        with pytest.raises(UserError, match=r"checkpoint of step 1 could not be written .*No space left on device"):
            ask()
    assert list(tmp_path.iterdir()) == []
