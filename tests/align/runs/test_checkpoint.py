"""The protocol: whatever moment a save is cut at, the newest whole checkpoint is the one that is found."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch

from align.errors import UserError
from align.runs import checkpoint as module
from align.runs.checkpoint import CheckpointStore, newest_version, require_current_version, verify
from align.settings.config import TrainerConfig
from align.system.identity import Identity
from align.training.optimizer import load_optimizer, make_optimizer, make_schedule, save_optimizer


class KilledError(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


def store(folder: Path, keep: int = 2, **identity: Any) -> CheckpointStore:
    return CheckpointStore(folder, Identity(identity or {"seed": 0}), keep=keep, rank=0, barrier=lambda: None)


def save(checkpoints: CheckpointStore, step: int) -> Path:
    def shared(folder: Path) -> None:
        (folder / "policy").mkdir()
        (folder / "policy" / "weights").write_bytes(bytes([step]) * 100)
        (folder / "optimizer").write_text("{}")

    return checkpoints.save(step, {"n": step}, shared=shared, own=lambda f: (f / "random-0").write_text("1") and None)


_CHANGING = ("rename", "replace", "write_text", "write_bytes", "mkdir")
_CALLS = 23  # system calls of a save that change the disk; the test below counts them


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

    with monkeypatch.context() as patch:
        for name in _CHANGING:
            patch.setattr(Path, name, dying(getattr(Path, name)))
        patch.setattr(os, "fsync", dying(os.fsync))
        patch.setattr(module.shutil, "rmtree", dying(module.shutil.rmtree))
        with contextlib.suppress(KilledError):
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

    with monkeypatch.context() as patch:
        for name in _CHANGING:
            patch.setattr(Path, name, counting(getattr(Path, name)))
        patch.setattr(os, "fsync", counting(os.fsync))
        patch.setattr(module.shutil, "rmtree", counting(module.shutil.rmtree))
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


def test_another_identity_is_refused_and_named(tmp_path: Path) -> None:
    save(store(tmp_path, data="a", trainer={"seed": 1, "lr": 0.1}), 1)
    with pytest.raises(UserError, match=r"resumed: trainer\.seed is 1 in the run and 2 now\."):
        store(tmp_path, data="a", trainer={"seed": 2, "lr": 0.1}).latest()
    other = store(tmp_path, data="b", trainer={"seed": 1, "lr": 0.1})
    other.accepted_by = {"data": "any_data=true"}
    with pytest.raises(UserError, match=r"Give what it began with, any_data=true for data, or if_exists=new\."):
        other.latest()


@pytest.mark.parametrize("name", ["adamw", "rmsprop", "sgd"])
def test_the_optimizer_reads_back_exactly(name: str, tmp_path: Path) -> None:
    def make() -> tuple[torch.nn.Linear, Any, Any]:
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 2)
        config = TrainerConfig(optimizer=name, weight_decay=0.1)  # pyright: ignore[reportArgumentType]
        optimizer = make_optimizer(dict(layer.named_parameters()), config, 0.1)
        return layer, optimizer, make_schedule(optimizer, "cosine", warmup=0.2, steps=10)

    def step(layer: Any, optimizer: Any, schedule: Any) -> None:
        layer(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()

    straight, resumed = make(), make()
    for _ in range(3):
        step(*straight)
    save_optimizer(straight[1], straight[2], tmp_path)
    resumed[0].load_state_dict(straight[0].state_dict())
    load_optimizer(resumed[1], resumed[2], tmp_path)
    for _ in range(3):
        step(*straight)
        step(*resumed)
    assert torch.equal(straight[0].weight, resumed[0].weight)
    assert straight[2].get_last_lr() == resumed[2].get_last_lr()
    assert not list(tmp_path.glob("*.pt"))


def test_older_checkpoints_go_only_after_the_new_one_was_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = store(tmp_path, keep=1)
    save(checkpoints, 1)
    publish = module.publish_folder

    def losing(partial: Path, folder: Path) -> None:
        publish(partial, folder)
        (folder / "policy" / "weights").write_bytes(bytes(100))  # the disk does not hold what was written

    monkeypatch.setattr(module, "publish_folder", losing)
    with pytest.raises(ValueError, match=r"weights is damaged"):
        save(checkpoints, 2)
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


def test_another_rounding_is_said_and_the_run_goes_on(tmp_path: Path) -> None:
    def of(**computed: Any) -> CheckpointStore:
        return CheckpointStore(tmp_path, Identity({"seed": 0}, computed), keep=1, rank=0, barrier=lambda: None)

    save(of(device="cpu", torch="1"), 1)
    assert of(device="cpu", torch="1").latest()[1] == []
    found, notes = of(device="cuda", torch="2").latest()
    assert found is not None
    assert notes == [
        "From here on results may differ in rounding: device is cpu in the run and cuda now; "
        "torch is 1 in the run and 2 now."
    ]


def test_what_follows_from_another_difference_is_not_named(tmp_path: Path) -> None:
    def of(**learnt: Any) -> CheckpointStore:
        follows = {"steps": ("data",)}
        return CheckpointStore(tmp_path, Identity(learnt), follows=follows, keep=1, rank=0, barrier=lambda: None)

    save(of(data="a", steps=1), 1)
    with pytest.raises(UserError, match=r"cannot be resumed: data is a in the run and b now\. Give"):
        of(data="b", steps=2).latest()
    with pytest.raises(UserError, match=r"cannot be resumed: steps is 1 in the run and 2 now\. Give"):
        of(data="a", steps=2).latest()


def test_a_checkpoint_of_an_earlier_format_is_found_without_a_comparison(tmp_path: Path) -> None:
    """Its identity has other entries. Without a version it is of the first."""
    folder = save(store(tmp_path), 1)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest.pop("version") == module.VERSION
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "manifest.sha256").unlink()
    found, _ = store(tmp_path, seed=1).latest()
    assert found is not None
    assert (found.step, found.version, newest_version(tmp_path)) == (1, 1, 1)
    require_current_version(tmp_path, module.VERSION)
    with pytest.raises(UserError, match=r"was begun by an earlier version .* the format 1, not 6; finish it"):
        require_current_version(tmp_path, found.version)


def test_the_newest_format_is_that_of_the_newest_manifest_that_can_be_read(tmp_path: Path) -> None:
    assert newest_version(tmp_path) is None
    for step, text in ((1, '{"version": 1}'), (2, '{"version": 2}'), (3, "{"), (4, "[]"), (5, None)):
        folder = tmp_path / f"step-{step:08d}"
        folder.mkdir()
        if text is not None:
            (folder / "manifest.json").write_text(text)
    assert newest_version(tmp_path) == 2


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
